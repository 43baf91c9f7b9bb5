"""Validation metrics that respect meta-groups: ``val-core/<domain>/<split>/acc`` and ``.../group_acc``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def group_metrics(
    identities: Sequence[Mapping[str, Any]], data_sources: Sequence[str], infos: Mapping[str, Sequence[Any]]
) -> dict[str, float]:
    """Accuracy of prompts and of meta-groups, by data source.

    A meta-group counts as right only if all completions of all its prompts are right (paper, group accuracy). Rows on
    which the reward abstained are left out and counted; a meta-group that lost a row that way is left out too.

    Args:
        identities: ``extra_info`` of each sample.
        data_sources: of each sample.
        infos: reward columns of each sample; ``acc`` and, where there is one, ``abstained``.
    """
    if "acc" not in infos:
        return {}
    by_source: dict[str, dict[str, list[tuple[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for row, source, acc in zip(identities, data_sources, infos["acc"], strict=True):
        if row.get("intent_id") is not None:
            value = np.nan if acc is None else float(acc)
            by_source[source][str(row["intent_id"])].append((str(row.get("role")), value))
    metrics: dict[str, float] = {}
    for source, groups in by_source.items():
        metrics.update({f"val-core/{source}/{name}": value for name, value in _source_metrics(groups).items()})
    return metrics


def _source_metrics(groups: Mapping[str, Sequence[tuple[str, float]]]) -> dict[str, float]:
    rows = [row for group in groups.values() for row in group]
    judged = [(role, acc) for role, acc in rows if np.isfinite(acc)]
    whole = [[acc for _, acc in group] for group in groups.values() if all(np.isfinite(acc) for _, acc in group)]
    metrics = {"abstain_rate": 1.0 - len(judged) / len(rows)}
    if judged:
        metrics["acc"] = float(np.mean([acc for _, acc in judged]))
    if whole:
        metrics["group_acc"] = float(np.mean([min(group) >= 1.0 for group in whole]))
    for role in sorted({role for role, _ in judged}):
        metrics[f"{role}_acc"] = float(np.mean([acc for r, acc in judged if r == role]))
    return metrics
