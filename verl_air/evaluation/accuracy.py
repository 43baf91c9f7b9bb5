"""Accuracy and group accuracy: the paper's two numbers, without intervals, for metrics during training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from verl_air.evaluation.meta_groups import meta_groups
from verl_air.evaluation.records import Record


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a set of records; None where there is nothing to average.

    prompts: mean verdict of the judged completions.
    groups: share of meta-groups all of whose prompts are right (paper, group accuracy; several completions a prompt:
        ``verl_air.evaluation.meta_groups``). A meta-group that lost a row to an abstention is left out.
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
    groups = meta_groups(records)
    rows = [record for group in groups for record in group.records]
    judged = [record.acc for record in rows if record.judged]
    whole = [group.all_right for group in groups if group.whole]
    return Accuracy(
        prompts=_mean(judged),
        groups=_mean(whole),
        completions=len(judged),
        intents=len(whole),
        abstained=_mean([float(not record.judged) for record in rows]),
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
