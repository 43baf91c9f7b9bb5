"""Which charts a report has. A chart without data is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from verl_air.evaluation.report.run_summary import Report, RunSummary
from verl_air.evaluation.report.svg import Axis, Line, line_chart, smoothed
from verl_air.evaluation.report.validations import ANCHORS
from verl_air.evaluation.run_folder import Series

_STEP = Axis("training step", whole=True)
_SHARE = Axis("", range=(0.0, 1.0), percent=True)
_NEAR = 5
"""Training steps around a validation over which the proxy is averaged."""

_PANELS = {
    "Anchor reward in training": "air/anchor_reward/mean",
    "Open reward in training": "air/open_reward/mean",
    "Gap: anchor minus open reward": "air/gap/mean",
}
_FEW = 3
"""Runs up to which the unsmoothed curves are drawn as well."""


@dataclass(frozen=True)
class Figure:
    """A chart. svg: markup made here; legend: (name, number of the colour)."""

    title: str
    svg: str
    legend: tuple[tuple[str, int], ...]
    note: str = ""


@dataclass(frozen=True)
class HeatMap:
    """Accuracy by framing: framings by steps for a single run, runs by framings for several.

    rows: (name, cells), a cell a column; None where not measured.
    """

    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]


def learning_curves(report: Report) -> list[Figure]:
    """Anchor and open reward in training, and their gap."""
    if len(report.runs) == 1:
        curves = report.runs[0].curves
        rewards = [
            *_curve("anchors", curves.get("air/anchor_reward/mean"), 0),
            *_curve("open variants", curves.get("air/open_reward/mean"), 1),
        ]
        gap = [*_band(curves), *_curve("anchor minus open", curves.get("air/gap/mean"), 2)]
        panels = [("Training reward", "reward", rewards), ("Gap: anchor minus open reward", "reward", gap)]
    else:
        panels = [(title, "reward", _curves_of(report.runs, name)) for title, name in _PANELS.items()]
    return [_figure(title, lines, _STEP, Axis(label)) for title, label, lines in panels if lines]


def group_accuracy(report: Report) -> list[Figure]:
    """Group accuracy on validation data over the steps, a chart for each domain and split; bands for up to two runs."""
    figures = []
    for source in report.sources:
        lines = []
        for i, run in enumerate(report.runs):
            points = sorted(run.groups.get(source, {}).items())
            known = [(step, e) for step, e in points if e.value is not None]
            if known:
                banded = len(report.runs) <= 2
                lines.append(
                    Line(
                        run.name,
                        [(step, e.value) for step, e in known if e.value is not None],
                        i,
                        band=[
                            (s, e.low, e.high) for s, e in known if banded and e.low is not None and e.high is not None
                        ],
                        marks=[f"{run.name}, step {step}: {e.value:.1%}" for step, e in known],
                    )
                )
        if lines:
            figures.append(_figure(f"Group accuracy, {source}", lines, _STEP, _SHARE))
    return figures


def hacking(report: Report) -> list[Figure]:
    """Accuracy on open rows against the open reward in training: to the right and down is reward hacking."""
    figures = []
    for source in report.sources:
        lines = []
        for i, run in enumerate(report.runs):
            points = proxy_against_oracle(run, source)
            if len(points) > 1:
                marks = [f"{run.name}, step {step}: reward {x:.2f}, accuracy {y:.1%}" for step, x, y in points]
                lines.append(Line(run.name, [(x, y) for _, x, y in points], i, marks=marks))
        if lines:
            x, y = Axis("open reward in training (proxy)"), Axis("accuracy, open rows", (0.0, 1.0), percent=True)
            figures.append(_figure(f"Proxy against validation, {source}", lines, x, y))
    return figures


def heat_maps(report: Report) -> list[HeatMap]:
    """Accuracy by framing: over the steps of a single run, or at the end of several."""
    maps = []
    for source in report.sources:
        families = sorted({family for run in report.runs for family in run.framings.get(source, {})})
        if not families:
            continue
        families.sort(key=lambda family: family != ANCHORS)
        if len(report.runs) == 1:
            series = report.runs[0].framings[source]
            steps = _spread(sorted({step for values in series.values() for step in values}), 8)
            columns = tuple(f"{step:,}" for step in steps)
            rows = [(family, [series[family].get(step) for step in steps]) for family in families]
        else:
            shown = [run for run in report.runs if source in run.framings]
            columns = tuple(families)
            rows = [(run.name, [_last(run.framings[source].get(family)) for family in families]) for run in shown]
        maps.append(HeatMap(source, columns, tuple((name, tuple(map(_known, cells))) for name, cells in rows)))
    return maps


def proxy_against_oracle(run: RunSummary, source: str) -> list[tuple[int, float, float]]:
    """(step, open training reward averaged over the nearest steps, accuracy on open rows) of each validation."""
    proxy = [(step, v) for step, v in run.curves.get("air/open_reward/mean", {}).items() if math.isfinite(v)]
    points = []
    for step, accuracy in sorted(run.open_accuracy.get(source, {}).items()):
        near = sorted(proxy, key=lambda item: abs(item[0] - step))[:_NEAR]
        if near and math.isfinite(accuracy):
            points.append((step, sum(value for _, value in near) / len(near), accuracy))
    return points


def _curve(name: str, series: Series | None, colour: int) -> list[Line]:
    """The smoothed line over the raw one."""
    points = sorted((series or {}).items())
    window = 2 * (len(points) // 40) + 1 if len(points) < 20 else max(5, 2 * (len(points) // 40) + 1)
    if not points:
        return []
    if window == 1:
        return [Line(name, points, colour)]
    return [Line(name, points, colour, faint=True), Line(name, smoothed(points, window), colour)]


def _curves_of(runs: Sequence[RunSummary], metric: str) -> list[Line]:
    lines = [line for i, run in enumerate(runs) for line in _curve(run.name, run.curves.get(metric), i)]
    return [line for line in lines if not line.faint or len(runs) <= _FEW]


def _band(curves: dict[str, Series]) -> list[Line]:
    gap, error = curves.get("air/gap/mean", {}), curves.get("air/gap_se", {})
    rows = [(step, gap[step] - 2 * error[step], gap[step] + 2 * error[step]) for step in sorted(gap) if step in error]
    return [Line("two standard errors", [], 2, band=rows, faint=True)] if rows else []


def _figure(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> Figure:
    legend = tuple(dict.fromkeys((line.name, line.colour) for line in lines if not line.faint))
    return Figure(title, line_chart(lines, x, y, title), legend)


def _spread(steps: Sequence[int], most: int) -> list[int]:
    """At most so many, first and last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def _last(series: Series | None) -> float | None:
    return series[max(series)] if series else None


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
