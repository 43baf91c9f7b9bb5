"""What the finished runs of an experiment say: ``results.md`` with tables, charts as SVG files, and the records.

Tables and charts without a word of interpretation, from the records alone; README.md says what they mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from studies.experiment.driver import RECORDS, Experiment
from studies.experiment.plan import ExperimentPlan, Study
from studies.experiment.power import power_of
from studies.experiment.runs import RunRecord, curves_in
from verl_air.errors import ConfigError
from verl_air.evaluation import (
    ChartAxis,
    ChartLine,
    Curves,
    Estimate,
    SeedDifference,
    SeedRow,
    line_chart,
    mean_over_seeds,
    seed_differences,
    seed_rows,
)
from verl_air.evaluation.tables import interval_or_value, markdown_table, p_value, percent, points
from verl_air.files import write_atomically

_METRICS = {
    "group_acc": "group accuracy",
    "acc": "accuracy",
    "anchor_acc": "anchors",
    "harmful_acc": "harmful, open",
    "benign_acc": "benign, open",
}


@dataclass(frozen=True)
class Findings:
    """A study so far.

    curves: of its finished runs, by method and seed, at the plan's steps.
    start: accuracies before training, by seed, source and metric, from the runs that measured them.
    """

    study: Study
    curves: dict[str, dict[int, Curves]]
    start: dict[int, dict[str, dict[str, float]]]
    rows: list[SeedRow]
    differences: list[SeedDifference]

    @property
    def finished(self) -> int:
        """Number of finished runs."""
        return sum(map(len, self.curves.values()))

    @property
    def planned(self) -> int:
        """Number of runs that the study asks for."""
        return len(self.study.methods) * len(self.study.seeds)


def find(experiment: Experiment, study: Study) -> Findings:
    """Sum a study up, as far as its runs are finished.

    Raises:
        DataError: a finished run lacks a metric that the others have.
    """
    measure = experiment.plan.measure
    found = Findings(study, {}, {}, [], [])
    for method, by_seed in experiment.records(study).items():
        for seed, record in by_seed.items():
            curves = curves_in(record)
            for source in measure.sources:
                for metric, curve in curves[source].items():
                    if 0 in curve:
                        found.start.setdefault(seed, {}).setdefault(source, {})[metric] = curve[0]
                    curves[source][metric] = {step: v for step, v in curve.items() if step in measure.steps}
            found.curves.setdefault(method, {})[seed] = curves
    for source in measure.sources if found.curves else ():
        for metric in _METRICS:
            found.rows.extend(seed_rows(found.curves, source, metric))
            if study.against in found.curves:
                found.differences.extend(seed_differences(found.curves, study.against, source, metric))
    return found


def write_report(experiment: Experiment) -> list[Path]:
    """Write the results of what is finished alongside the plan; returns their paths. Earlier charts are replaced.

    The records of an archived plan stay as they are.
    """
    folder = experiment.plan.path.parent
    studies = [find(experiment, study) for study in experiment.plan.studies]
    charts: dict[str, str] = {}
    for found in studies:
        if found.study.charts and found.curves:
            charts |= _charts(experiment.plan, found)
    for stale in folder.glob("*.svg"):
        if stale.name not in charts:
            stale.unlink()
    written = [write_atomically(folder / name, svg) for name, svg in charts.items()]
    if not experiment.plan.archived:
        records = experiment.published | _by_run(experiment)  # what does not count stays until its run is repeated
        lines = [json.dumps(records[k], separators=(",", ":"), allow_nan=False) + "\n" for k in sorted(records)]
        written.append(write_atomically(folder / RECORDS, "".join(lines)))
    written.append(write_atomically(folder / "results.md", _page(experiment, studies, list(charts))))
    return written


def _by_run(experiment: Experiment) -> dict[tuple[str, int], RunRecord]:
    """Every finished run of the plan once, however many studies share it."""
    return {
        (method, seed): record
        for study in experiment.plan.studies
        for method, by_seed in experiment.records(study).items()
        for seed, record in by_seed.items()
    }


def _charts(plan: ExperimentPlan, found: Findings) -> dict[str, str]:
    """Group accuracy of a study: mean curves with 95 % intervals over seeds; file name -> SVG, one per source."""
    charts = {}
    for source in plan.measure.sources:
        lines = []
        for i, (method, runs) in enumerate(found.curves.items()):
            title = plan.methods[method].title
            curves = [run[source]["group_acc"] for run in runs.values()]
            means = {step: mean_over_seeds([curve[step] for curve in curves]) for step in plan.measure.steps}
            values = {step: e.value for step, e in means.items() if e.value is not None}
            band = [
                (step, max(0.0, e.low), min(1.0, e.high))
                for step, e in means.items()
                if e.low is not None and e.high is not None
            ]
            marks = [f"{title}, step {step}: {value:.3f}" for step, value in values.items()]
            lines.append(ChartLine(title, list(values.items()), i, band=band, marks=marks))
        title = f"group accuracy, {source}"
        chart = line_chart(
            lines,
            ChartAxis("training step", whole=True),
            ChartAxis("", (0.0, 1.0), percent=True),
            title,
            standalone=True,
        )
        charts[f"{found.study.name}-{source.replace('/', '-')}.svg"] = chart
    return charts


def _page(experiment: Experiment, studies: Sequence[Findings], charts: Sequence[str]) -> str:
    lines = [
        "# Results",
        "",
        "Written by `python -m studies.experiment --report`; what it means is in [README.md](README.md). "
        + _how_it_was_run(experiment, studies),
        "",
        "In brackets: 95 % intervals over seeds (Student's t). Each seed is a world of its own. Nothing is corrected "
        "for looking at many lines: of twenty differences without cause one has p < 0.05.",
        "",
    ]
    shown: set[tuple[str, int]] = set()
    for found in studies:
        lines += [f"## {found.study.title or found.study.name}", "", found.study.question.strip(), ""]
        for method, reason in experiment.withdrawn(found.study).items():
            lines += [f"**Withdrawn: {experiment.plan.methods[method].title}** ({reason}).", ""]
        if found.finished < found.planned:
            lines += [f"**Unfinished: {found.finished} of {found.planned} runs.**", ""]
        runs = {(method, seed) for method, by_seed in found.curves.items() for seed in by_seed}
        if runs - shown or found.finished == found.planned:  # else an earlier study has shown all there is
            lines += _tables(experiment, found)
        shown |= runs
        lines += [f"![{name}]({name})" for name in charts if name.startswith(f"{found.study.name}-playground")]
        lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _how_it_was_run(experiment: Experiment, studies: Sequence[Findings]) -> str:
    records = _by_run(experiment).values()
    asked, done = sum(found.planned for found in studies), sum(found.finished for found in studies)
    crashed = sum(record["attempts"] - 1 for record in records)
    hours = sum(record["seconds"] or 0 for record in records) / 3600
    commits = sorted({(record["git"] or {}).get("commit", "unknown")[:8] for record in records})
    modified = any((record["git"] or {}).get("modified") for record in records)
    return (
        f"{len(records)} runs ({done} of {asked} that the studies ask for; some share runs), {hours:.1f} hours; "
        f"{crashed} attempt(s) crashed or were stopped and were repeated. "
        f"Commit {', '.join(commits) or 'unknown'}{' with changes' if modified else ''}."
    )


def _tables(experiment: Experiment, found: Findings) -> list[str]:
    plan = experiment.plan
    lines = []
    if found.study.choose:
        try:
            chosen, scores = experiment.choice(found.study), experiment.scores(found.study)
        except ConfigError:  # not all of its runs are finished
            pass
        else:
            means = ", ".join(f"{plan.methods[m].title} {percent(sum(v) / len(v))}" for m, v in scores.items())
            lines += [f"Chosen: {plan.methods[chosen].title} ({means}).", ""]
    for source in plan.measure.sources if found.rows else ():
        lines += [f"### {source}, step {plan.measure.steps[-1]}", ""]
        lines += [*_end_points(plan, found, source), "", *_areas(plan, found, source), ""]
        against = [d for d in found.differences if d.source == source and d.metric in ("group_acc", "acc")]
        if against:
            lines += [*_differences(plan, against), ""]
    return lines


def _end_points(plan: ExperimentPlan, found: Findings, source: str) -> list[str]:
    """One row per method, one column per metric; the start first."""
    table = [["method", "seeds", *_METRICS.values()]]
    starts = [by_source[source] for by_source in found.start.values() if source in by_source]
    if starts:
        means = [[values[metric] for values in starts if metric in values] for metric in _METRICS]
        table.append(["before training", str(len(starts)), *(percent(sum(v) / len(v)) if v else "-" for v in means)])
    by_key = {(row.method, row.source, row.metric): row for row in found.rows}
    for method, runs in found.curves.items():
        ends = [interval_or_value(by_key[method, source, metric].end) for metric in _METRICS]
        table.append([plan.methods[method].title, str(len(runs)), *ends])
    return markdown_table(table)


def _areas(plan: ExperimentPlan, found: Findings, source: str) -> list[str]:
    """How group accuracy got there: the area under its curve."""
    steps = plan.measure.steps
    head = ["method", "seeds", f"group accuracy, mean over steps {steps[0]} to {steps[-1]}"]
    rows = [
        [plan.methods[row.method].title, str(row.seeds), interval_or_value(row.area)]
        for row in found.rows
        if (row.source, row.metric) == (source, "group_acc")
    ]
    return markdown_table([head, *rows])


def _differences(plan: ExperimentPlan, differences: Sequence[SeedDifference]) -> list[str]:
    head = ["paired by seed", "seeds", "metric", "end point", "p", "mean over steps", "p", "ahead at the end"]
    same = {d.metric: d for d in differences if plan.repeats(d.method) == d.against}
    if same:
        head.append("A/A, mean over steps")
    rows = [
        [
            f"{plan.methods[d.method].title} minus {plan.methods[d.against].title}",
            str(d.seeds),
            _METRICS[d.metric],
            *(points(d.end), _p(d.p_end), points(d.area), _p(d.p_area)),
            f"{d.ahead} of {d.seeds}",
            *([points(same[d.metric].area)] if same else []),
        ]
        for d in differences
    ]
    lines = markdown_table([head, *rows])
    if same and (half := _half_width(same["group_acc"].area)):
        seeds = same["group_acc"].seeds
        spread = half * math.sqrt(seeds) / float(stats.t.ppf(0.975, seeds - 1))
        lines += ["", f"A/A, group accuracy, mean over steps: {power_of(spread, seeds)}"]
    return lines


def _half_width(e: Estimate) -> float:
    return 0.0 if e.low is None or e.high is None else (e.high - e.low) / 2


def _p(p: float | None) -> str:
    return "-" if p is None else p_value(p).removeprefix("p = ")
