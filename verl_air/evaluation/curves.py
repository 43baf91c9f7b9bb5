"""Accuracies of a run over its validations, and what a curve is summed up by beside its end point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from verl_air.errors import DataError
from verl_air.evaluation.accuracy import accuracy_of
from verl_air.evaluation.records import Record
from verl_air.evaluation.run_folder import RunFolder

Curve: TypeAlias = dict[int, float]
"""A value by training step."""

Curves: TypeAlias = dict[str, dict[str, Curve]]
"""By ``domain/split``, then by metric."""

METRICS = ("group_acc", "acc", "anchor_acc", "open_acc", "harmful_acc", "benign_acc", "abstained")
"""Group accuracy; accuracy of all rows, of anchors, of open rows, and of those of harmful and of benign intents."""


def curves_of(run: RunFolder) -> Curves:
    """Curves from the validations that a run stored; a validation that was cut off is left out."""
    curves: Curves = {}
    for step, records in run.whole_validations().items():
        for source, values in accuracies(records).items():
            for metric, value in values.items():
                curves.setdefault(source, {}).setdefault(metric, {})[step] = value
    return curves


def accuracies(records: Iterable[Record]) -> dict[str, dict[str, float]]:
    """The metrics of one validation by ``domain/split``; what has nothing to average is left out."""
    sources: dict[str, list[Record]] = {}
    for record in records:
        sources.setdefault(f"{record.domain}/{record.split}" if record.domain else record.split, []).append(record)
    return {source: _metrics(rows) for source, rows in sorted(sources.items())}


def _metrics(rows: Sequence[Record]) -> dict[str, float]:
    whole = accuracy_of(rows)
    opens = [record for record in rows if record.role == "open"]
    found = {
        "group_acc": whole.groups,
        "acc": whole.prompts,
        "anchor_acc": accuracy_of(record for record in rows if record.role == "anchor").prompts,
        "open_acc": accuracy_of(opens).prompts,
        "harmful_acc": accuracy_of(record for record in opens if record.harmful is True).prompts,
        "benign_acc": accuracy_of(record for record in opens if record.harmful is False).prompts,
        "abstained": whole.abstained,
    }
    return {name: value for name, value in found.items() if value is not None}


def area_under(curve: Mapping[int, float], steps: Sequence[int]) -> float:
    """Mean height of a curve between the first and the last of these steps, straight lines between validations.

    Raises:
        DataError: a step is missing, or there is only one.
    """
    values = _values(curve, steps)
    if len(steps) < 2:
        raise DataError("the area under a curve needs validations at two steps at least; lower trainer.test_freq")
    pieces = zip(steps, steps[1:], values, values[1:], strict=False)
    return sum((b - a) * (u + v) / 2 for a, b, u, v in pieces) / (steps[-1] - steps[0])


def steps_to(curve: Mapping[int, float], threshold: float, steps: Sequence[int]) -> float | None:
    """The first step at which a curve is at a threshold, straight lines between validations; None if it never is.

    A curve that begins above it counts as its first step.
    """
    values = _values(curve, steps)
    if values[0] >= threshold:
        return float(steps[0])
    for a, b, u, v in zip(steps, steps[1:], values, values[1:], strict=False):
        if v >= threshold:
            return a + (b - a) * (threshold - u) / (v - u)
    return None


def _values(curve: Mapping[int, float], steps: Sequence[int]) -> list[float]:
    if missing := [step for step in steps if step not in curve]:
        raise DataError(f"no validation at step {missing[0]}; the curve has steps {', '.join(map(str, sorted(curve)))}")
    return [curve[step] for step in steps]
