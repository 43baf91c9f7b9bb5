"""Accuracy, group accuracy and consistency of a set of records, with intervals and the number of intents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from verl_air.evaluation.intervals import LEVEL, Estimate, ratio_of, share_of
from verl_air.evaluation.meta_groups import MetaGroup, meta_groups
from verl_air.evaluation.records import Record


@dataclass(frozen=True)
class Estimates:
    """What one line of a table says.

    prompts: accuracy of completions (bootstrap over intents).
    groups: group accuracy (Wilson; bootstrap over intents if a prompt has several completions or an intent several
        splits).
    consistent: share of meta-groups whose prompts all get the same verdict, right or wrong.
    intents, completions: how many there are, judged or not.
    abstained: share of completions without a verdict; None if there is no completion.
    """

    prompts: Estimate
    groups: Estimate
    consistent: Estimate
    intents: int
    completions: int
    abstained: float | None


def estimate(records: Iterable[Record], level: float = LEVEL) -> Estimates:
    """Estimate all of them. ``level``: nominal coverage of the intervals."""
    groups = meta_groups(records)
    clusters = _clusters(groups)
    judged = [[record.acc for record in group.records if record.judged] for group in groups]
    completions = sum(len(group.records) for group in groups)
    is_whole = np.array([group.whole for group in groups], dtype=bool)
    whole = [group for group in groups if group.whole]
    return Estimates(
        prompts=ratio_of(
            np.array([sum(accs) for accs in judged]), np.array([float(len(accs)) for accs in judged]), clusters, level
        ),
        groups=share_of(np.array([group.all_right for group in whole]), clusters[is_whole], level),
        consistent=share_of(np.array([group.same_verdict for group in whole]), clusters[is_whole], level),
        intents=len(set(clusters.tolist())),
        completions=completions,
        abstained=1 - sum(map(len, judged)) / completions if completions else None,
    )


def _clusters(groups: Sequence[MetaGroup]) -> np.ndarray:
    number: dict[tuple[str, str], int] = {}
    return np.array([number.setdefault(group.intent, len(number)) for group in groups], dtype=int)
