"""Everything the page says about a run, as numbers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from verl_air.errors import DataError
from verl_air.evaluation.breakdown import Section, breakdown
from verl_air.evaluation.comparison import Comparison, compare
from verl_air.evaluation.intervals import Estimate
from verl_air.evaluation.records import Record
from verl_air.evaluation.report.alarms import Alarm, alarms_of
from verl_air.evaluation.report.samples import SampleGroup, sample_groups
from verl_air.evaluation.report.settings import planned_steps, shown_settings, versions, whole_recipe
from verl_air.evaluation.report.validations import Validations
from verl_air.evaluation.rollout_metrics import rollout_metrics
from verl_air.evaluation.run_folder import RunFolder, Series, read_run_folder

_GROUP_ACCURACY = re.compile(r"val-core/(.+)/group_acc")


@dataclass
class RunSummary:
    """One run.

    name: short and distinct among the runs of a report.
    steps, planned: training steps done, and how many the recipe asked for.
    curves: training metrics by name (``air/...``), from ``metrics.jsonl`` or else from stored rollouts.
    groups: group accuracy by source (``safety/ood``) and step; without interval if only the metric is there.
    framings: accuracy by source, framing family (or ``anchors``) and step.
    open_accuracy: accuracy on open rows by source and step: what the training reward is held against.
    first_step, last_step, first, last: the first and last stored validation, and their tables.
    change: last against first, on the same intents.
    """

    name: str
    path: str
    steps: int | None = None
    planned: int | None = None
    curves: dict[str, Series] = field(default_factory=dict)
    groups: dict[str, dict[int, Estimate]] = field(default_factory=dict)
    framings: dict[str, dict[str, Series]] = field(default_factory=dict)
    open_accuracy: dict[str, Series] = field(default_factory=dict)
    first_step: int | None = None
    last_step: int | None = None
    first: list[Section] = field(default_factory=list)
    last: list[Section] = field(default_factory=list)
    change: list[Comparison] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    recipe: str = ""
    faults: list[str] = field(default_factory=list)


@dataclass
class Report:
    """Several runs. against_first: name of a run -> its last validation against that of the first run."""

    runs: list[RunSummary]
    against_first: dict[str, list[Comparison]]
    samples: list[SampleGroup]

    @property
    def sources(self) -> list[str]:
        """Domain and split of every validation, in order."""
        tables = (section.name for run in self.runs for section in run.last)
        curves = (source for run in self.runs for source in run.groups)
        return list(dict.fromkeys([*tables, *curves]))


def summarise(paths: Sequence[str | os.PathLike[str]], names: Sequence[str | None] = ()) -> Report:
    """Read runs.

    Args:
        paths: see :func:`verl_air.evaluation.run_folder.read_run_folder` for what a path may be.
        names: what to call the runs; one that has none goes by its folder. Empty: all of them do.

    Raises:
        DataError: a path is not there, or a file is not what a run with an ``air:`` recipe writes.
    """
    folders = [read_run_folder(path) for path in paths]
    called = _distinct_names(folders, names or [None] * len(folders))
    validations = [Validations.read(folder) for folder in folders]
    runs = [_summarise(*parts) for parts in zip(called, folders, validations, strict=True)]
    against_first = {}
    for run, found in zip(runs[1:], validations[1:], strict=True):
        if found.last and validations[0].last and (pairs := _compare(validations[0].last, found.last)):
            against_first[run.name] = pairs
    return Report(runs, against_first, sample_groups(_sample_columns(runs, folders)))


def _summarise(name: str, folder: RunFolder, found: Validations) -> RunSummary:
    met = folder.met(found.last) if found.last else None
    run = RunSummary(
        name=name,
        path=str(folder.path),
        planned=planned_steps(folder.config),
        curves=_curves(folder),
        groups=dict(found.groups) or _groups_from_metrics(folder.metrics),
        framings={source: dict(families) for source, families in found.framings.items()},
        open_accuracy=dict(found.open_accuracy) or _open_from_metrics(folder.metrics),
        first_step=found.first_step,
        last_step=found.last_step,
        last=breakdown(found.last, met),
        settings=shown_settings(folder.config),
        versions=versions(folder.record),
        recipe=whole_recipe(folder.config),
    )
    if found.first_step != found.last_step:
        run.first = breakdown(found.first, met)
        run.change = _compare(found.first, found.last)
    reached = [step for series in folder.metrics.values() for step in series]
    run.steps = max([*reached, *folder.rollouts, *folder.validations], default=None)
    run.alarms = alarms_of(run)
    run.faults = folder.faults
    return run


def _curves(folder: RunFolder) -> dict[str, Series]:
    curves = {name: series for name, series in folder.metrics.items() if name.startswith(("air/", "actor/"))}
    for name in ("response_length/clip_ratio",):
        if name in folder.metrics:
            curves[name] = folder.metrics[name]
    if "air/open_reward/mean" not in curves:
        for step, path in folder.rollouts.items():
            for name, value in rollout_metrics(folder.records(path)[0]).items():
                curves.setdefault(name, {})[step] = value
    return curves


def _groups_from_metrics(metrics: dict[str, Series]) -> dict[str, dict[int, Estimate]]:
    return {
        found[1]: {
            step: Estimate(value, None, None, 0, "none") for step, value in series.items() if math.isfinite(value)
        }
        for name, series in metrics.items()
        if (found := _GROUP_ACCURACY.fullmatch(name))
    }


def _open_from_metrics(metrics: dict[str, Series]) -> dict[str, Series]:
    ending = "/open_acc"
    return {
        name.removeprefix("val-core/").removesuffix(ending): series
        for name, series in metrics.items()
        if name.startswith("val-core/") and name.endswith(ending)
    }


def _compare(a: list[Record], b: list[Record]) -> list[Comparison]:
    """Pairs, or nothing if the two have no intent in common: that is no fault of a report."""
    try:
        return compare(a, b)
    except DataError:
        return []


def _distinct_names(folders: Sequence[RunFolder], given: Sequence[str | None]) -> list[str]:
    short = [name or folder.name for name, folder in zip(given, folders, strict=True)]
    names = [
        str(folder.path) if name is None and short.count(folder.name) > 1 else short[i]
        for i, (name, folder) in enumerate(zip(given, folders, strict=True))
    ]
    return [name if names.index(name) == i else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _sample_columns(runs: Sequence[RunSummary], folders: Sequence[RunFolder]) -> dict[str, Path]:
    """What stands side by side: before and after of a single run, or the last validations of up to three runs."""
    validated = [(run, folder) for run, folder in zip(runs, folders, strict=True) if run.last_step is not None]
    if len(validated) == 1:
        run, folder = validated[0]
        steps = dict.fromkeys(step for step in (run.first_step, run.last_step) if step is not None)
        return {f"step {step}": folder.validations[step] for step in steps}
    if validated:
        return {
            run.name: folder.validations[run.last_step] for run, folder in validated[:3] if run.last_step is not None
        }
    return {
        f"{run.name}, step {max(folder.rollouts)}": folder.rollouts[max(folder.rollouts)]
        for run, folder in list(zip(runs, folders, strict=True))[:3]
        if folder.rollouts
    }
