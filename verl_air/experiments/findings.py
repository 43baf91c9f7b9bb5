"""What the finished runs of an experiment say, as plain data: the content of ``results.json``."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from verl_air.errors import ConfigError
from verl_air.evaluation.seeds import Curves, SeedDifference, SeedRow, seed_differences, seed_rows
from verl_air.experiments.driver import Experiment
from verl_air.experiments.plan import Study
from verl_air.experiments.runs import read_curves

COMPARED = ("group_acc", "acc", "anchor_acc", "harmful_acc", "benign_acc")
"""Metrics that are summed up over seeds; see :data:`verl_air.evaluation.METRICS`."""

Training = dict[str, dict[int, float]]
"""A training metric's mean over the steps between two validations, by the later one's step."""


@dataclass(frozen=True)
class StudyFindings:
    """A study so far.

    curves, training: of its finished runs, by method and seed.
    start: accuracies before training, by seed, source and metric, from the runs that measured them.
    planned, finished: runs. chosen: the method it picked, and its scores by method; None if it picks none, or not yet.
    """

    study: Study
    curves: dict[str, dict[int, Curves]]
    training: dict[str, dict[int, Training]]
    start: dict[int, dict[str, dict[str, float]]]
    rows: list[SeedRow]
    differences: list[SeedDifference]
    planned: int
    finished: int
    chosen: tuple[str, dict[str, list[float]]] | None

    def row(self, method: str, source: str, metric: str) -> SeedRow | None:
        """A row, if it is there."""
        return next((r for r in self.rows if (r.method, r.source, r.metric) == (method, source, metric)), None)


def find(experiment: Experiment, study: Study) -> StudyFindings:
    """Sum a study up, as far as its runs are finished.

    Raises:
        DataError: a finished run lacks a metric that the others have.
    """
    measure = experiment.plan.measure
    records = experiment.records(study)
    curves: dict[str, dict[int, Curves]] = {}
    start: dict[int, dict[str, dict[str, float]]] = {}
    for method, by_seed in records.items():
        for seed, record in by_seed.items():
            found = read_curves(record)
            for source in measure.sources:
                for metric, curve in found[source].items():
                    if 0 in curve:
                        start.setdefault(seed, {}).setdefault(source, {})[metric] = curve[0]
                    found[source][metric] = {step: v for step, v in curve.items() if step in measure.steps}
            curves.setdefault(method, {})[seed] = found
    rows: list[SeedRow] = []
    differences: list[SeedDifference] = []
    for source in measure.sources if curves else ():
        for metric in COMPARED:
            threshold = measure.thresholds[source]
            rows += seed_rows(curves, source, metric, threshold)
            if study.against in curves:
                differences += seed_differences(curves, study.against, source, metric, threshold)
    training = {
        method: {seed: _windows(record, measure.steps) for seed, record in by_seed.items()}
        for method, by_seed in records.items()
    }
    finished = sum(map(len, records.values()))
    planned = len(study.methods) * len(study.seeds)
    return StudyFindings(
        study, curves, training, start, rows, differences, planned, finished, _choice(experiment, study)
    )


def to_json(experiment: Experiment, studies: list[StudyFindings]) -> dict[str, Any]:
    """All of it, for programs; a run that several studies share stands there once."""
    runs: dict[str, dict[str, Any]] = {}
    for found in studies:
        for by_seed in experiment.records(found.study).values():
            for record in by_seed.values():
                kept = {name: value for name, value in record.items() if name != "training"}
                runs.setdefault(record["hash"], {**kept, "training": _windows(record, experiment.plan.measure.steps)})
    return {
        "plan": {
            "file": str(experiment.plan.path),
            "sha256": hashlib.sha256(experiment.plan.text.encode()).hexdigest(),
            "measure": asdict(experiment.plan.measure),
        },
        "commits": sorted({(run["git"] or {}).get("commit") or "unknown" for run in runs.values()}),
        "studies": [
            {
                "name": found.study.name,
                "planned": found.planned,
                "finished": found.finished,
                "chosen": found.chosen[0] if found.chosen else None,
                "scores": found.chosen[1] if found.chosen else None,
                "rows": [asdict(row) for row in found.rows],
                "differences": [asdict(difference) for difference in found.differences],
            }
            for found in studies
        ],
        "runs": list(runs.values()),
    }


def _choice(experiment: Experiment, study: Study) -> tuple[str, dict[str, list[float]]] | None:
    if study.choose is None:
        return None
    try:
        return experiment.choice(study), experiment.scores(study)
    except ConfigError:  # not all of its runs are finished
        return None


def _windows(record: dict[str, Any], steps: tuple[int, ...]) -> Training:
    windows: Training = {}
    for metric, series in record["training"].items():
        for first, last in zip((0, *steps), steps, strict=False):
            values = [value for step, value in series.items() if first < int(step) <= last]
            if values:
                windows.setdefault(metric, {})[last] = round(fmean(values), 5)
    return windows
