"""The charts of an experiment as SVG files of their own, which follow the reader's light or dark scheme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from verl_air.evaluation import ChartAxis as Axis
from verl_air.evaluation import ChartLine as Line
from verl_air.evaluation import Curve, line_chart, mean_over_seeds
from verl_air.experiments.findings import StudyFindings
from verl_air.experiments.plan import Plan

_SHARES = {
    "group_acc": "group accuracy",
    "benign_acc": "accuracy, open rows of benign intents",
    "harmful_acc": "accuracy, open rows of harmful intents",
}


def study_figures(plan: Plan, found: StudyFindings, metrics: Sequence[str] = ("group_acc",)) -> dict[str, str]:
    """Mean curves with 95 % intervals over seeds: file name -> SVG, a chart a source and metric."""
    figures = {}
    for source in plan.measure.sources:
        for metric in metrics:
            series = {
                plan.methods[method].title: _mean_curve([runs[seed][source][metric] for seed in sorted(runs)])
                for method, runs in found.curves.items()
                if all(metric in run[source] for run in runs.values())
            }
            title = f"{_SHARES.get(metric, metric)}, {source}"
            name = f"{found.study.name}-{source.replace('/', '-')}-{metric.replace('_', '-')}.svg"
            figures[name] = _chart(title, series, Axis("", (0.0, 1.0), percent=True))
    return figures


def training_figure(plan: Plan, found: StudyFindings, metric: str, title: str) -> dict[str, str]:
    """A training metric, each point the mean over the steps since the validation before."""
    series = {
        plan.methods[method].title: _mean_curve([run[metric] for run in runs.values() if metric in run])
        for method, runs in found.training.items()
    }
    name = f"{found.study.name}-training-{metric.replace('/', '-').replace('_', '-')}.svg"
    return {name: _chart(title, {name: points for name, points in series.items() if points}, Axis(""))}


_Points = list[tuple[int, float, float | None, float | None]]


def _mean_curve(curves: Sequence[Curve]) -> _Points:
    """(step, mean, low, high) at the steps that all curves have."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    estimates = [(step, mean_over_seeds([curve[step] for curve in curves])) for step in steps]
    return [(step, e.value, e.low, e.high) for step, e in estimates if e.value is not None]


def _chart(title: str, series: Mapping[str, _Points], y: Axis) -> str:
    inside: Callable[[float], float] = (lambda v: min(1.0, max(0.0, v))) if y.range else (lambda v: v)
    lines = [
        Line(
            name,
            [(step, value) for step, value, _, _ in points],
            i,
            band=[(s, inside(low), inside(high)) for s, _, low, high in points if low is not None and high is not None],
            marks=[f"{name}, step {step}: {value:.3f}" for step, value, _, _ in points],
        )
        for i, (name, points) in enumerate(series.items())
    ]
    return line_chart(lines, Axis("training step", whole=True), y, title, standalone=True)
