"""Everything that the page says about runs, as numbers."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from verl_air.errors import DataError
from verl_air.evaluation.breakdown import Section, breakdown
from verl_air.evaluation.comparison import Comparison, compare
from verl_air.evaluation.metrics import rollout_metrics
from verl_air.evaluation.records import ScoredRollout
from verl_air.evaluation.report.samples import SampleGroup, sample_groups
from verl_air.evaluation.report.settings import select
from verl_air.evaluation.run_folder import RunFolder, Series, read_run_folder
from verl_air.evaluation.seeds import Curves, SeedTables, curves_from, seed_of_run, seed_tables


@dataclass
class RunSummary:
    """One run.

    name: short and distinct among the runs of a report.
    curves: training metrics by name (``air/...``), from ``metrics.jsonl`` or else from stored rollouts.
    validations: the table of each step, without most intervals (``breakdown`` with ``intervals=False``).
    last: the table of the last validation, with all intervals.
    change: the last validation compared with the first, on the same intents.
    capability: general benchmarks likewise, on the same questions: the last stored evaluation compared with the first.
    """

    name: str
    folder: RunFolder
    curves: dict[str, Series] = field(default_factory=dict)
    validations: dict[int, list[Section]] = field(default_factory=dict)
    last: list[Section] = field(default_factory=list)
    change: list[Comparison] = field(default_factory=list)
    capability: list[Comparison] = field(default_factory=list)

    @property
    def steps(self) -> int | None:
        """Training steps done."""
        reached = [step for series in self.folder.metrics.values() for step in series]
        return max([*reached, *self.folder.rollouts, *self.folder.validations], default=None)

    @property
    def planned(self) -> int | None:
        """Training steps that the recipe asked for."""
        planned = select(self.folder.config, "trainer.total_training_steps")
        return planned if isinstance(planned, int) else None

    @property
    def first_step(self) -> int | None:
        """Of the first validation."""
        return min(self.validations, default=None)

    @property
    def last_step(self) -> int | None:
        """Of the last validation."""
        return max(self.validations, default=None)

    def sections(self, source: str) -> dict[int, Section]:
        """The section of a ``domain/split`` by step."""
        return {
            step: found for step, sections in self.validations.items() for found in sections if found.name == source
        }

    def accuracy(self, source: str, kind: str, name: str) -> Series:
        """Accuracy of a line of the table by step."""
        lines = {step: section.line(kind, name) for step, section in self.sections(source).items()}
        return {step: e.prompts.value for step, e in lines.items() if e and e.prompts.value is not None}


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
        return list(dict.fromkeys(section.name for run in self.runs for section in run.last))


def summarise(paths: Sequence[str | os.PathLike[str]], names: Sequence[str | None] = ()) -> RunReport:
    """Read runs.

    Args:
        paths: see :func:`verl_air.evaluation.run_folder.read_run_folder` for what a path may be.
        names: of the runs; one without a name is called by its folder. Several runs of one name are seeds of a method.

    Raises:
        DataError: a path is not there, a file is not what a run with an ``air:`` recipe writes, or runs of one name
            are not distinct seeds.
    """
    folders = [read_run_folder(path) for path in paths]
    given = [*names] or [None] * len(folders)
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
    several = any(number > 1 for name, number in Counter(given).items() if name is not None)
    seeds = seed_tables(_by_seed(given, runs)) if several else None
    return RunReport(runs, against_first, sample_groups(_sample_columns(runs)), seeds)


def _by_seed(given: Sequence[str | None], runs: Sequence[RunSummary]) -> dict[str, dict[int, Curves]]:
    methods: dict[str, dict[int, Curves]] = defaultdict(dict)
    for name, run in zip(given, runs, strict=True):
        seeds, seed, path = methods[name or run.name], seed_of_run(run.folder), run.folder.path
        if seed is None:
            raise DataError(f"{path}: its stored recipe has no data.seed, so it cannot be a seed of {name!r}")
        if seed in seeds:
            raise DataError(f"{name}: two runs with seed {seed}; the second is {path}. Name it differently")
        seeds[seed] = curves_from(run.validations)
    return methods


def _summarise(name: str, folder: RunFolder) -> tuple[RunSummary, list[ScoredRollout]]:
    """A run, and the rollouts of its last validation."""
    run = RunSummary(name, folder, _curves(folder))
    first: list[ScoredRollout] = []
    last: list[ScoredRollout] = []
    for step, rollouts in folder.whole_validations():
        first, last = first or rollouts, rollouts
        run.validations[step] = breakdown(rollouts, intervals=False)
    if last:
        run.last = breakdown(last)
        run.change = _compare(first, last) if len(run.validations) > 1 else []
    if folder.capability:
        before, after = (folder.read(folder.capability[of(folder.capability)])[0] for of in (min, max))
        run.capability = _compare(before, after) if len(folder.capability) > 1 else []
        if not run.capability:
            folder.faults.append("capability: a change needs two stored evaluations of the same questions")
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


def _sample_columns(runs: Sequence[RunSummary]) -> dict[str, Path]:
    """What is shown side by side: before and after of a single run, or the last validations of up to three runs."""
    validated = [run for run in runs if run.validations]
    if len(validated) == 1:
        (run,) = validated
        steps = dict.fromkeys(step for step in (run.first_step, run.last_step) if step is not None)
        return {f"step {step}": run.folder.validations[step] for step in steps}
    if validated:
        return {run.name: run.folder.validations[max(run.validations)] for run in validated[:3]}
    last = [(run.name, max(run.folder.rollouts.items())) for run in runs[:3] if run.folder.rollouts]
    return {f"{name}, step {step}": path for name, (step, path) in last}
