"""From intents to rows: which anchors and which framings an intent gets, and in what words."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from verl_air.data.anchors import AnchorFormat, BalancedPositions
from verl_air.data.framings import Framing
from verl_air.data.intents import Intent, seeded, seeded_rank
from verl_air.data.response_format import with_instruction
from verl_air.data.schema import Message, Role, Row, Split, make_row
from verl_air.data.splits import SHIFT
from verl_air.errors import DataError


@dataclass(frozen=True)
class Plan:
    """What each intent of a split gets.

    anchors, open_: rows an intent.
    formats: anchor formats, taken in turn.
    framings: the split's framings; an intent gets different ones, of as many families as it can.
    answer: what the answer of an open prompt is; completes "Then write ... inside <answer>".
    """

    domain: str
    split: Split
    anchors: int
    open_: int
    formats: Sequence[AnchorFormat]
    framings: Sequence[Framing]
    answer: str
    seed: int


def render_split(intents: Sequence[Intent], plan: Plan) -> Iterator[Row]:
    """All rows of a split, intent by intent; their order and content depend on the seed and the intents alone.

    Raises:
        DataError: an intent cannot have as many different anchors, or a framing names an unknown slot.
    """
    positions = BalancedPositions(seeded(plan.seed, plan.split, "positions"))
    index = 0
    for number, intent in enumerate(sorted(intents, key=lambda z: seeded_rank(plan.seed, z.intent_id))):
        rng = seeded(plan.seed, plan.split, intent.intent_id)
        for row in (*_anchors(intent, plan, number, positions, rng), *_open_rows(intent, plan, rng)):
            row["extra_info"]["index"] = index
            index += 1
            yield row


def _anchors(
    intent: Intent, plan: Plan, number: int, positions: BalancedPositions, rng: random.Random
) -> Iterator[Row]:
    used: dict[str, set[int]] = defaultdict(set)
    for k in range(plan.anchors):
        # Intents start with different formats, so that one anchor an intent still uses all formats.
        chosen = plan.formats[(number + k) % len(plan.formats)]
        n = chosen.positions(intent.question)
        if len(used[chosen.name]) == n:
            raise DataError(
                f"intent {intent.intent_id}: {plan.anchors} anchors cannot differ: format {chosen.name!r} has {n} "
                "answer positions here. Ask for fewer anchors or for more formats."
            )
        position = positions.draw((chosen.name, intent.stratum), n)
        while position in used[chosen.name]:
            position = (position + 1) % n
        used[chosen.name].add(position)
        anchor = chosen.render(intent.question, position, rng)
        extras = {"verifier": chosen.verifier, **({"choices": anchor.choices} if anchor.choices else {})}
        prompt = with_instruction([Message(role="user", content=anchor.text)], anchor.what, plan.domain)
        yield _row(intent, plan, "anchor", prompt, anchor.ground_truth, chosen.name, "anchor", extras)


def _open_rows(intent: Intent, plan: Plan, rng: random.Random) -> Iterator[Row]:
    slots = {"request": intent.request, **intent.slots}
    for framing in choose_framings(plan.framings, plan.open_, rng):
        prompt = with_instruction(framing.render(slots), plan.answer, plan.domain)
        yield _row(intent, plan, "open", prompt, intent.ground_truth, framing.name, framing.family, {})


def choose_framings(framings: Sequence[Framing], n: int, rng: random.Random) -> list[Framing]:
    """``n`` different framings; no family a second time before each had its turn."""
    families: dict[str, list[Framing]] = defaultdict(list)
    for framing in rng.sample(framings, len(framings)):
        families[framing.family].append(framing)
    chosen: list[Framing] = []
    while len(chosen) < n:
        left = [members for members in families.values() if members]
        chosen.extend(members.pop() for members in left[: n - len(chosen)])
    return chosen


def _row(
    intent: Intent,
    plan: Plan,
    role: Role,
    prompt: list[Message],
    ground_truth: str,
    context: str,
    family: str,
    extras: Mapping[str, object],
) -> Row:
    everything = {**intent.extras, **extras, "request": intent.request, "shift": SHIFT[plan.split]}
    return make_row(
        prompt=prompt,
        ground_truth=ground_truth,
        intent_id=intent.intent_id,
        role=role,
        context=context,
        family=family,
        domain=plan.domain,
        split=plan.split,
        index=0,
        extras=json.dumps(everything, ensure_ascii=False, sort_keys=True),
    )
