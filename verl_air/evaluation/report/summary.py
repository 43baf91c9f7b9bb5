"""Everything that the page says about runs, as numbers."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from verl_air.errors import DataError
from verl_air.evaluation.breakdown import Estimates, Section, breakdown, group_share
from verl_air.evaluation.comparison import Comparison, compare
from verl_air.evaluation.metrics import meta_groups, prompt_accuracy, rollout_metrics
from verl_air.evaluation.records import ScoredRollout
from verl_air.evaluation.report.samples import SampleGroup, sample_groups
from verl_air.evaluation.report.settings import select, shown_settings, versions, whole_recipe
from verl_air.evaluation.run_folder import RunFolder, Series, read_run_folder
from verl_air.evaluation.seeds import SeedTables, by_seed, seed_of_run, seed_tables
from verl_air.evaluation.statistics import Estimate

ANCHORS = "anchors"
"""The anchor rows' name among the framing families."""


@dataclass
class RunSummary:
    """One run.

    name: short and distinct among the runs of a report.
    steps, planned: training steps done, and how many the recipe asked for.
    curves: training metrics by name (``air/...``), from ``metrics.jsonl`` or else from stored rollouts.
    groups: group accuracy by source (``safety/ood``) and step; without interval if only the metric is there.
    framings: accuracy by source, framing family (or ``anchors``) and step.
    open_accuracy: accuracy on open rows by source and step: what the training reward is compared with.
    first_step, last_step, first, last: the first and last stored validation, and their tables.
    change: last compared with first, on the same intents.
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
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    recipe: str = ""
    faults: list[str] = field(default_factory=list)


@dataclass
class RunReport:
    """Several runs.

    against_first: name of a run -> its last validation compared with that of the first run.
    seeds: methods over seeds, if several runs have one name.
    """

    runs: list[RunSummary]
    against_first: dict[str, list[Comparison]]
    samples: list[SampleGroup]
    seeds: SeedTables | None = None

    @property
    def sources(self) -> list[str]:
        """Domain and split of every validation, in order."""
        tables = (section.name for run in self.runs for section in run.last)
        curves = (source for run in self.runs for source in run.groups)
        return list(dict.fromkeys([*tables, *curves]))


def summarise(
    paths: Sequence[str | os.PathLike[str]], names: Sequence[str | None] = (), threshold: float = 0.5
) -> RunReport:
    """Read runs.

    Args:
        paths: see :func:`verl_air.evaluation.run_folder.read_run_folder` for what a path may be.
        names: of the runs; one without a name is called by its folder. Several runs of one name are seeds of a method.
        threshold: of the steps to it, see :class:`verl_air.evaluation.seeds.SeedRow`.

    Raises:
        DataError: a path is not there, a file is not what a run with an ``air:`` recipe writes, or runs of one name
            are not distinct seeds.
    """
    folders = [read_run_folder(path) for path in paths]
    given = [*names] or [None] * len(folders)
    seeds = None
    if any(number > 1 for name, number in Counter(given).items() if name is not None):
        methods = by_seed((name or folder.name, folder) for name, folder in zip(given, folders, strict=True))
        seeds = seed_tables(methods, threshold)
    runs: list[RunSummary] = []
    first: list[ScoredRollout] = []
    against_first: dict[str, list[Comparison]] = {}
    for name, folder in zip(_distinct_names(folders, given), folders, strict=True):
        run, last = _summarise(name, folder)
        if not runs:
            first = last
        elif pairs := _compare(first, last):
            against_first[name] = pairs
        runs.append(run)
    return RunReport(runs, against_first, sample_groups(_sample_columns(runs, folders)), seeds)


def _summarise(name: str, folder: RunFolder) -> tuple[RunSummary, list[ScoredRollout]]:
    """A run, and the rollouts of its last validation."""
    planned = select(folder.config, "trainer.total_training_steps")
    run = RunSummary(
        name=name,
        path=str(folder.path),
        planned=planned if isinstance(planned, int) else None,
        curves=_curves(folder),
        settings=shown_settings(folder.config),
        versions=versions(folder.record),
        recipe=whole_recipe(folder.config),
    )
    first, last = _read_validations(run, folder)
    if last:
        seen = folder.seen_in_training(last)
        run.last = breakdown(last, seen)
        if run.first_step != run.last_step:
            run.first, run.change = breakdown(first, seen), _compare(first, last)
    else:
        _read_validation_metrics(run, folder)
    reached = [step for series in folder.metrics.values() for step in series]
    run.steps = max([*reached, *folder.rollouts, *folder.validations], default=None)
    run.faults = folder.faults
    return run, last


def _curves(folder: RunFolder) -> dict[str, Series]:
    curves = {
        name: series
        for name, series in folder.metrics.items()
        if name.startswith(("air/", "actor/")) or name == "response_length/clip_ratio"
    }
    if "air/open_reward/mean" not in curves:
        for step, path in folder.rollouts.items():
            for name, value in rollout_metrics(folder.read(path)[0]).items():
                curves.setdefault(name, {})[step] = value
    return curves


def _read_validations(run: RunSummary, folder: RunFolder) -> tuple[list[ScoredRollout], list[ScoredRollout]]:
    """Read the validations that are whole, one at a time; returns the rollouts of the first and of the last."""
    first: list[ScoredRollout] = []
    last: list[ScoredRollout] = []
    for step in folder.validations:
        for rollouts in folder.whole_validations([step]).values():
            first, last = first or rollouts, rollouts
            run.first_step, run.last_step = step if run.first_step is None else run.first_step, step
            by_source: dict[str, list[ScoredRollout]] = defaultdict(list)
            for rollout in rollouts:
                by_source[rollout.source].append(rollout)
            for source, rows in by_source.items():
                run.groups.setdefault(source, {})[step] = group_share(meta_groups(rows))
                opens = prompt_accuracy(row for row in rows if row.role == "open")
                run.open_accuracy.setdefault(source, {})[step] = math.nan if opens is None else opens
                by_family: dict[str, list[ScoredRollout]] = defaultdict(list)
                for row in rows:
                    by_family[ANCHORS if row.role == "anchor" else row.family].append(row)
                for family, of_family in by_family.items():
                    accuracy = prompt_accuracy(of_family)
                    series = run.framings.setdefault(source, {}).setdefault(family, {})
                    series[step] = math.nan if accuracy is None else accuracy
    return first, last


def _read_validation_metrics(run: RunSummary, folder: RunFolder) -> None:
    """Without stored validations there are verl's own metrics: values without intervals."""
    for name, series in folder.metrics.items():
        source, _, metric = name.removeprefix("val-core/").rpartition("/")
        if not name.startswith("val-core/") or not source:
            continue
        if metric == "open_acc":
            run.open_accuracy[source] = series
        points = {step: Estimate(value) for step, value in series.items() if math.isfinite(value)}
        if metric == "group_acc" and points:
            run.groups[source] = points
            run.last_step = max(points)
            domain, _, split = source.rpartition("/")
            run.last.append(Section(domain, split, (), Estimates(groups=points[run.last_step])))


def _compare(a: list[ScoredRollout], b: list[ScoredRollout]) -> list[Comparison]:
    """Pairs, or nothing if the two have no intent in common: that is no fault of a report."""
    try:
        return compare(a, b)
    except DataError:
        return []


def _distinct_names(folders: Sequence[RunFolder], given: Sequence[str | None]) -> list[str]:
    """Runs of one given name by their seeds, runs without by their folders."""
    own = Counter(given) + Counter(folder.name for name, folder in zip(given, folders, strict=True) if name is None)
    names: list[str] = []
    for name, folder in zip(given, folders, strict=True):
        if name is None:
            name = folder.name if own[folder.name] == 1 else str(folder.path)
        elif given.count(name) > 1:
            name = f"{name}, seed {seed_of_run(folder)}"
        names.append(f"{name} ({len(names) + 1})" if name in names else name)
    return names


def _sample_columns(runs: Sequence[RunSummary], folders: Sequence[RunFolder]) -> dict[str, Path]:
    """What is shown side by side: before and after of a single run, or the last validations of up to three runs."""
    both = list(zip(runs, folders, strict=True))
    validated = [(run, folder) for run, folder in both if run.last_step in folder.validations]
    if len(validated) == 1:
        run, folder = validated[0]
        steps = dict.fromkeys(step for step in (run.first_step, run.last_step) if step is not None)
        return {f"step {step}": folder.validations[step] for step in steps}
    if validated:
        return {run.name: folder.validations[run.last_step or 0] for run, folder in validated[:3]}
    return {
        f"{run.name}, step {max(folder.rollouts)}": folder.rollouts[max(folder.rollouts)]
        for run, folder in both[:3]
        if folder.rollouts
    }
