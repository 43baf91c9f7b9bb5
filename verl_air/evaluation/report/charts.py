"""Which charts a report has. A chart without data is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verl_air.evaluation.breakdown import Section
from verl_air.evaluation.metrics import ALL_DOMAINS
from verl_air.evaluation.report.summary import RunReport, RunSummary
from verl_air.evaluation.report.svg import ChartAxis, ChartLine, line_chart, smoothed
from verl_air.evaluation.run_folder import Series

_STEP = ChartAxis("training step", whole=True)
_SHARE = ChartAxis("", range=(0.0, 1.0), percent=True)
_NEAR = 5
"""Training steps around a validation over which the proxy is averaged."""
ANCHORS = "anchors"
"""The anchor rows' name among the framing families."""
_FEW = 3
"""Runs up to which the unsmoothed curves are drawn as well."""
_PANELS = {
    "Anchor reward in training": "air/anchor_reward/mean",
    "Open reward in training": "air/open_reward/mean",
    "Gap: anchor minus open reward": "air/gap/mean",
}


@dataclass(frozen=True)
class ReportChart:
    """A chart. svg: markup; legend: (name, number of the colour)."""

    title: str
    svg: str
    legend: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class HeatMap:
    """Accuracy by framing, one column per step of a single run, or one per run.

    rows: (framing, cells), one cell per column; None where not measured.
    """

    source: str
    columns: list[str]
    rows: list[tuple[str, list[float | None]]]


def learning_curves(report: RunReport) -> list[ReportChart]:
    """Anchor and open reward in training, and their gap."""
    if len(report.runs) == 1:
        curves = report.runs[0].curves
        anchors, opens, gap = (curves.get(metric) for metric in _PANELS.values())
        panels = {
            "Training reward": [*_curve("anchors", anchors, 0), *_curve("open variants", opens, 1)],
            "Gap: anchor minus open reward": [*_gap_band(curves), *_curve("anchor minus open", gap, 2)],
        }
    else:
        panels = {title: _curves(report.runs, metric) for title, metric in _PANELS.items()}
    return [_chart(title, lines, _STEP, ChartAxis("reward")) for title, lines in panels.items() if lines]


def group_accuracy_curves(report: RunReport) -> list[ReportChart]:
    """Group accuracy on validation data over the steps, a chart for each domain and split; bands for up to two runs."""
    charts = []
    for source in _sources(report):
        lines = []
        for i, run in enumerate(report.runs):
            groups = {step: section.whole.groups for step, section in run.sections(source).items()}
            known = [(step, e, e.value) for step, e in groups.items() if e.value is not None]
            intervals = [(s, e.low, e.high) for s, e, _ in known if e.low is not None and e.high is not None]
            marks = [f"{run.name}, step {step}: {value:.1%}" for step, _, value in known]
            points = [(step, value) for step, _, value in known]
            if points:
                lines.append(ChartLine(run.name, points, i, intervals if len(report.runs) <= 2 else (), marks=marks))
        if lines:
            charts.append(_chart(f"Group accuracy, {source}", lines, _STEP, _SHARE))
    return charts


def hacking(report: RunReport) -> list[ReportChart]:
    """Accuracy on open rows against the open reward in training: to the right and down is reward hacking."""
    x = ChartAxis("open reward in training (proxy)")
    y = ChartAxis("accuracy, open rows", (0.0, 1.0), percent=True)
    charts = []
    for source in _sources(report):
        lines = []
        for i, run in enumerate(report.runs):
            if len(points := proxy_and_accuracy(run, source)) > 1:
                marks = [f"{run.name}, step {step}: reward {x:.2f}, accuracy {y:.1%}" for step, x, y in points]
                lines.append(ChartLine(run.name, [(x, y) for _, x, y in points], i, marks=marks))
        if lines:
            charts.append(_chart(f"Proxy against validation, {source}", lines, x, y))
    return charts


def proxy_and_accuracy(run: RunSummary, source: str) -> list[tuple[int, float, float]]:
    """(step, open training reward averaged over the nearest steps, accuracy on open rows) of each validation."""
    proxy = [(step, v) for step, v in run.curves.get("air/open_reward/mean", {}).items() if math.isfinite(v)]
    points = []
    for step, accuracy in run.accuracy(source, "role", "open").items():
        if near := [value for _, value in sorted(proxy, key=lambda item: abs(item[0] - step))[:_NEAR]]:
            points.append((step, sum(near) / len(near), accuracy))
    return points


def heat_maps(report: RunReport) -> list[HeatMap]:
    """Accuracy by framing: over the steps of a single run, or at the end of several."""
    maps = []
    for source in _sources(report):
        if len(report.runs) == 1:
            found = report.runs[0].sections(source)
            columns = {f"{step:,}": found[step] for step in _spread(sorted(found), 8)}
        else:
            columns = {run.name: found[max(found)] for run in report.runs if (found := run.sections(source))}
        lines = [line for section in columns.values() for line in section.lines]
        names = {ANCHORS: ("role", "anchor")}
        names |= {name: ("family", name) for name in sorted({line.name for line in lines if line.kind == "family"})}
        rows = [(title, [_accuracy(section, *line) for section in columns.values()]) for title, line in names.items()]
        maps.append(HeatMap(source, list(columns), [row for row in rows if any(cell is not None for cell in row[1])]))
    return [found for found in maps if found.rows]


def _accuracy(section: Section, kind: str, name: str) -> float | None:
    found = section.line(kind, name)
    return None if found is None else found.prompts.value


def _sources(report: RunReport) -> list[str]:
    return [source for source in report.sources if not source.startswith(ALL_DOMAINS)]


def _curve(name: str, series: Series | None, colour: int) -> list[ChartLine]:
    """The smoothed line over the raw one."""
    points = sorted((series or {}).items())
    if len(points) < 20:
        return [ChartLine(name, points, colour)] if points else []
    window = max(5, 2 * (len(points) // 40) + 1)
    return [ChartLine(name, points, colour, faint=True), ChartLine(name, smoothed(points, window), colour)]


def _curves(runs: Sequence[RunSummary], metric: str) -> list[ChartLine]:
    lines = [line for i, run in enumerate(runs) for line in _curve(run.name, run.curves.get(metric), i)]
    return [line for line in lines if not line.faint or len(runs) <= _FEW]


def _gap_band(curves: dict[str, Series]) -> list[ChartLine]:
    gap, error = curves.get("air/gap/mean", {}), curves.get("air/gap_se", {})
    rows = [(step, gap[step] - 2 * error[step], gap[step] + 2 * error[step]) for step in sorted(gap) if step in error]
    return [ChartLine("two standard errors", [], 2, band=rows, faint=True)] if rows else []


def _chart(title: str, lines: Sequence[ChartLine], x: ChartAxis, y: ChartAxis) -> ReportChart:
    legend = tuple(dict.fromkeys((line.name, line.colour) for line in lines if not line.faint))
    return ReportChart(title, line_chart(lines, x, y, title), legend)


def _spread(steps: Sequence[int], most: int) -> list[int]:
    """At most so many, first and last among them."""
    return [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))]
