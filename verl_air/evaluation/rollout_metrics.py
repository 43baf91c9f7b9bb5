"""The ``air/...`` metrics of ``verl_air.training.metrics`` again, from stored rollouts alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from verl_air.evaluation.records import Record


def rollout_metrics(records: Iterable[Record]) -> dict[str, float]:
    """Metrics of one step, by the names that a run logs. Truncation is not stored with rollouts.

    A rate or mean over nothing is left out. An intent's visits within a step count as one meta-group.
    """
    records = list(records)
    scored = [record for record in records if math.isfinite(record.score) and record.judged]
    anchors = [record for record in scored if record.role == "anchor"]
    opens = [record for record in scored if record.role == "open"]
    rewards: dict[tuple[str, str], dict[tuple[str, str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in scored:
        rewards[record.domain, record.intent_id][record.prompt_key].append(record.score)
    gaps = [gap for prompts in rewards.values() if (gap := _gap(prompts)) is not None]
    found = {
        "air/gap/mean": _mean(gaps),
        "air/anchor_reward/mean": _mean([record.score for record in anchors]),
        "air/open_reward/mean": _mean([record.score for record in opens]),
        "air/anchor_acc": _mean([record.acc for record in anchors]),
        "air/open_acc": _mean([record.acc for record in opens]),
        "air/judge/abstain_rate": _mean([float(not record.judged) for record in records if record.role == "open"]),
        "air/zero_std_rate": _mean(
            [float(min(scores) == max(scores)) for prompts in rewards.values() for scores in prompts.values()]
        ),
    }
    return {name: value for name, value in found.items() if value is not None}


def _gap(prompts: dict[tuple[str, str, str], list[float]]) -> float | None:
    """Anchor minus open reward, prompts weighing alike; None unless there are both."""
    means: dict[str, list[float]] = defaultdict(list)
    for (role, _, _), scores in prompts.items():
        means[role].append(sum(scores) / len(scores))
    anchor, open_ = _mean(means["anchor"]), _mean(means["open"])
    return None if anchor is None or open_ is None else anchor - open_


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
