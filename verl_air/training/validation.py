"""Validation metrics that respect meta-groups: ``val-core/<domain>/<split>/acc`` and ``.../group_acc``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from verl_air.evaluation import ScoredRollout, accuracy_of


def group_metrics(
    identities: Sequence[Mapping[str, Any]], data_sources: Sequence[str], infos: Mapping[str, Sequence[Any]]
) -> dict[str, float]:
    """Accuracy of prompts and of meta-groups, by data source.

    Args:
        identities: ``extra_info`` of each sample; samples without one are left out.
        data_sources: of each sample.
        infos: reward columns of each sample; nothing is reported without ``acc``.
    """
    by_source: dict[str, list[ScoredRollout]] = defaultdict(list)
    for row, source, acc in zip(identities, data_sources, infos.get("acc", [None] * len(identities)), strict=True):
        if row and "acc" in infos:
            by_source[source].append(
                ScoredRollout.from_mapping({**row, "acc": acc}, f"validation row {row.get('index')}")
            )
    metrics: dict[str, float] = {}
    for source, records in by_source.items():
        metrics.update({f"val-core/{source}/{name}": value for name, value in _metrics(records).items()})
    return metrics


def _metrics(records: list[ScoredRollout]) -> dict[str, float]:
    accuracy = accuracy_of(records)
    values = {"acc": accuracy.prompts, "group_acc": accuracy.groups, "abstain_rate": accuracy.abstained}
    for role in sorted({record.role for record in records}):
        values[f"{role}_acc"] = accuracy_of(record for record in records if record.role == role).prompts
    return {name: value for name, value in values.items() if value is not None}
