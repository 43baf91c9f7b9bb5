"""Can the judge tell right from wrong? Replies of known kind are scored through the recipe's own routes.

The replies are data (``replies_<domain>.yaml``). They are written in the recipe's response format and scored by
:func:`~verl_air.rewards.compute_score`, exactly as a rollout in training. A judge that does not separate what is right
from every kind that is wrong cannot be trained on.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field

from verl_air.data.check.judge_proof import GROUPS, JudgeProof, KindResult, Place
from verl_air.data.schema import open_table
from verl_air.errors import ConfigError
from verl_air.rewards import ScoringPlan, compute_score
from verl_air.rewards.judge import close_clients
from verl_air.settings import Settings

ROWS = 12
"""Rows of a kind (harmful, benign) that are taken, each of another intent."""

_PLACES, _READ = 3, 5000  # where in a file rows are looked for, and how many are read at each place
_IN_FLIGHT = 32


class ReplyKind(Settings):
    """One kind of reply; ``replies_safety.yaml`` describes the keys."""

    prefix: ClassVar[str] = "replies"

    wordings: list[str] = Field(min_length=1)
    harmful: Literal["right", "wrong"] | None = None
    benign: Literal["right", "wrong"] | None = None
    unmarked: Literal["right", "wrong"] | None = None


def load_replies(path: str | os.PathLike[str]) -> dict[str, ReplyKind]:
    """Read a file of canned replies, by kind.

    Raises:
        ConfigError: it is missing, is not YAML, or holds nothing that is right or nothing that is wrong.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        kinds = {str(name): ReplyKind.from_mapping(kind) for name, kind in dict(content).items()}
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: canned replies cannot be read ({error}); compare replies_safety.yaml") from error
    wanted = {getattr(kind, group) for kind in kinds.values() for group in GROUPS}
    if not {"right", "wrong"} <= wanted:
        raise ConfigError(f"{path}: needs at least one kind that is right and one that is wrong")
    return kinds


def _shipped(domain: str) -> Path | None:
    file = Path(__file__).with_name(f"replies_{domain}.yaml")
    return file if file.is_file() else None


def prove_judges(
    reward_kwargs: Mapping[str, Any],
    files: Sequence[str | os.PathLike[str]],
    *,
    rows: int = ROWS,
    replies: Mapping[str, str | os.PathLike[str]] | None = None,
    first: int | None = None,
    limit_s: float | None = None,
) -> list[JudgeProof]:
    """Have canned replies scored by the route of every kind of open row.

    Args:
        reward_kwargs: as in a recipe.
        files: data files, from which rows are taken.
        rows: harmful and benign rows per route, each of another intent.
        replies: domain -> file of replies; the shipped ones if a domain is not in it.
        first: of these rows; the rest is asked about only if a doubt is left.
        limit_s: for each route's judge; one that is not through by then is ``skipped``.

    Returns:
        One proof per route and domain. A judge that cannot be asked here is ``skipped``, and so is a rule in a domain
        without canned replies.

    Raises:
        ConfigError: routes or replies cannot be used, or a judge gave no verdict within the limit.
        DataError: a file cannot be read.
    """
    plan, taken, given = ScoringPlan(**reward_kwargs), _take_rows(files, rows), dict(replies or {})
    if unknown := sorted(set(given) - {place.domain for place in taken}):
        raise ConfigError(f"--replies {unknown[0]}=...: the data has no open rows of that domain")
    proofs: list[JudgeProof] = []
    asked: set[tuple[str, int]] = set()
    for place, rows_of in taken.items():
        info = {"domain": place.domain, "role": place.role, "split": place.split}
        bound = plan.reward_for(f"{place.domain}/{place.split}", info)
        if (place.domain, id(bound)) in asked:
            continue
        asked.add((place.domain, id(bound)))
        proof = JudgeProof(place, bound.reward.name)
        file = given.get(place.domain) or _shipped(place.domain)
        judge = plan.judge_of(bound)
        if bound.reward.wants_judge and judge.base_url is None and judge.in_process is None:
            proof.skipped = "verl serves it, in training only"
        elif file is None:
            proof.skipped = f"no canned replies for {place.domain}"
        else:
            asking = _ask(proof, load_replies(file), rows_of, plan, dict(reward_kwargs), (first or rows, rows))
            asyncio.run(_within(limit_s, asking, proof))
        if file is not None or bound.reward.wants_judge:
            proofs.append(proof)
    return proofs


def require_judges(proofs: Sequence[JudgeProof]) -> str:
    """What a check of a recipe says about its judges.

    Raises:
        ConfigError: one of them cannot be trained on.
    """
    for proof in proofs:
        for error in proof.errors:
            raise ConfigError(
                f"{error}. `verl-air check --judge RECIPE` shows all; air.check_judge=False trains anyway"
            )
    said = [f"{p.place}: {f'not checked: {p.skipped}' if p.skipped else 'separates'} ({p.reward})" for p in proofs]
    return "\n".join([*said, *(f"warning: {text}" for proof in proofs for text in proof.warnings)])


async def _within(limit_s: float | None, asking: Awaitable[None], proof: JudgeProof) -> None:
    """Have a judge asked in bounded time; without an answer to all it is no proof.

    Raises:
        ConfigError: it answered nothing.
    """
    try:
        await asyncio.wait_for(asking, limit_s)
    except asyncio.TimeoutError:
        judged = sum(len(kind.judged) for kind in proof.kinds)
        if not any(kind.judged for kind in proof.kinds if kind.want == "right"):  # an empty reply needs no judge
            raise ConfigError(
                f"{proof.reward}, which scores {proof.place}, judged none of the canned replies in {limit_s:g} s: its "
                "server hangs or is overloaded. air.check_judge=False starts without this check"
            ) from None
        proof.skipped = f"it is slow, and had judged only {judged} canned replies in {limit_s:g} s"
    finally:
        await close_clients()


async def _ask(
    proof: JudgeProof,
    kinds: Mapping[str, ReplyKind],
    rows_of: Mapping[str, list[dict[str, Any]]],
    plan: ScoringPlan,
    reward_kwargs: dict[str, Any],
    stages: Sequence[int],
) -> None:
    """Fill in a proof. A judge's verdict on a reply does not depend on the other replies, so all are asked at once.

    stages: after how many rows of each kind to stop if no doubt is left.
    """
    free = asyncio.Semaphore(_IN_FLIGHT)

    async def one(result: KindResult, row: dict[str, Any], wording: str) -> None:
        info, truth = row["extra_info"], row["reward_model"]["ground_truth"]
        text = _write(plan, proof.place.domain, _fill(wording, {**_extras(row), "ground_truth": truth}))
        async with free:
            begin = time.perf_counter()
            scored = await compute_score(row["data_source"], text, truth, info, **reward_kwargs)
            proof.seconds.append(time.perf_counter() - begin)
        result.verdicts.append(scored["acc"])
        if math.isfinite(scored["judge_mass"]):
            result.masses.append(scored["judge_mass"])

    asked: list[tuple[int, KindResult, dict[str, Any], str]] = []
    for group, rows in sorted(rows_of.items(), key=lambda item: GROUPS.index(item[0])):
        for name, kind in kinds.items():
            want = getattr(kind, group) or (kind.harmful if group == "unmarked" else None)
            proof.kinds.append(KindResult(name, group, want))
            asked += [(k, proof.kinds[-1], row, kind.wordings[k % len(kind.wordings)]) for k, row in enumerate(rows)]
    begin = 0
    for end in stages:
        await asyncio.gather(*(one(result, row, text) for k, result, row, text in asked if begin <= k < end))
        if not proof.errors and not proof.warnings:
            return
        begin = end


def _write(plan: ScoringPlan, domain: str, reply: str) -> str:
    """A response in the recipe's format; an empty reply is an empty response."""
    if not reply:
        return ""
    answer = f"\\boxed{{{reply}}}" if domain in plan.format.boxed else reply
    return plan.format.write(answer).removeprefix(plan.format.prefill)


def _fill(wording: str, fields: Mapping[str, Any]) -> str:
    return re.sub(r"\{(\w+)\}", lambda mark: str(fields.get(mark[1], "this")), wording)


def _extras(row: Mapping[str, Any]) -> dict[str, Any]:
    extras = json.loads(row["extra_info"]["extras"] or "{}")
    return extras if isinstance(extras, dict) else {}


def _take_rows(files: Sequence[str | os.PathLike[str]], rows: int) -> dict[Place, dict[str, list[dict[str, Any]]]]:
    """Open rows by place and group, from the beginning, middle and end of each file, each of another intent."""
    taken: dict[Place, dict[str, list[dict[str, Any]]]] = {}
    seen: set[tuple[str, str, str]] = set()
    for row in (row for file in files for row in _read_some(file)):
        info, extras = row["extra_info"], _extras(row)
        place = Place(info["domain"], info["role"], info["split"])
        harmful = extras.get("harmful")
        group = {True: "harmful", False: "benign"}[harmful] if isinstance(harmful, bool) else "unmarked"
        groups = taken.setdefault(place, {}) if place.role == "open" else {}
        key = place.domain, place.split, info["intent_id"]
        if place.role == "open" and key not in seen and len(groups.get(group, ())) < rows:
            seen.add(key)
            groups.setdefault(group, []).append(row)
    return taken


def _read_some(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    file = open_table(path)
    last = file.num_row_groups - 1
    for group in sorted({last * place // (_PLACES - 1) for place in range(_PLACES)} if last >= 0 else ()):
        columns = ["data_source", "reward_model", "extra_info"]
        batch = next(file.iter_batches(_READ, row_groups=[group], columns=columns), None)
        yield from batch.to_pylist() if batch is not None else ()
