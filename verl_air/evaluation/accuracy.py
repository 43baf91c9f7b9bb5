"""Accuracy and group accuracy: the paper's two numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from verl_air.evaluation.records import Record


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a set of records; None where there is nothing to average.

    prompts: share of judged completions that are right.
    groups: share of meta-groups all of whose completions are right (paper, group accuracy). A meta-group that lost a
        row to an abstention is left out.
    completions, intents: how many of each these are over.
    abstained: share of completions without a verdict.
    """

    prompts: float | None
    groups: float | None
    completions: int
    intents: int
    abstained: float | None


def accuracy_of(records: Iterable[Record]) -> Accuracy:
    """Compute both numbers; an intent is told apart by domain, split and id."""
    groups: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.domain, record.split, record.intent_id].append(record)
    rows = [record for group in groups.values() for record in group]
    judged = [record.acc for record in rows if record.judged]
    whole = [group for group in groups.values() if all(record.judged for record in group)]
    return Accuracy(
        prompts=_mean(judged),
        groups=_mean([float(all(record.acc >= 1.0 for record in group)) for group in whole]),
        completions=len(judged),
        intents=len(whole),
        abstained=_mean([float(not record.judged) for record in rows]),
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
