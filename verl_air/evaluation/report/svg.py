"""Line charts as SVG, on a page or as files of their own. Colours are CSS variables, ``--s0`` to ``--s9``, so that both
light and dark schemes are served. Ours and not matplotlib's, whose colours are fixed and which would be
one more dependency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from verl_air.evaluation.tables import p_value, percent, visible

COLOURS = 10
_WIDTH, _HEIGHT = 380, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, _WIDTH - 12, 10, _HEIGHT - 38  # the edges of the plot
_PLOT = {"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM}
_MAX_POINTS = 240

Point = tuple[float, float]


@dataclass(frozen=True)
class ChartLine:
    """One line of a chart. Points with a value that is not finite break it.

    colour: number of the colour; beyond ``COLOURS`` they repeat, dashed.
    band: (x, low, high) around it.
    faint: drawn thin and pale, and not in the legend: the raw data behind a smoothed line.
    marks: a dot at each point, hollow at the first one; the text is shown on hovering.
    """

    name: str
    points: Sequence[Point]
    colour: int = 0
    band: Sequence[tuple[float, float, float]] = ()
    faint: bool = False
    marks: Sequence[str] = ()


@dataclass(frozen=True)
class ChartAxis:
    """Label of an axis and, where it is fixed, its range.

    percent: ticks are shown as shares. whole: ticks are whole numbers, and the axis ends where the values do. names:
    ticks and what is written there, for a scale that is not linear; the axis ends where they do.
    """

    label: str
    range: tuple[float, float] | None = None
    percent: bool = False
    whole: bool = False
    names: tuple[tuple[float, str], ...] = ()


def line_chart(lines: Sequence[ChartLine], x: ChartAxis, y: ChartAxis, title: str, *, standalone: bool = False) -> str:
    """An ``<svg>`` element.

    Args:
        lines: what to draw.
        x, y: the axes.
        title: read by screen readers, and written above a standalone chart.
        standalone: the content of a file of its own, with title, legend and colours.
    """
    to_x, ticks_x = _scale(x, [point[0] for line in lines for point in line.points], _LEFT, _RIGHT)
    values = [value for line in lines for row in (*line.points, *line.band) for value in row[1:]]
    to_y, ticks_y = _scale(y, values, _BOTTOM, _TOP)
    return render_template(
        "chart.svg.jinja",
        title=title,
        standalone=standalone,
        **_PLOT,
        x_label=x.label,
        y_label=y.label,
        ticks_x=[(round(to_x(tick), 1), _tick(tick, x, ticks_x)) for tick in ticks_x],
        ticks_y=[(round(to_y(tick), 1), _tick(tick, y, ticks_y)) for tick in ticks_y],
        lines=[
            {
                "name": line.name,
                "colour": line.colour % COLOURS,
                "faint": line.faint,
                "dashed": line.colour >= COLOURS,
                "band": _band(line, to_x, to_y),
                "path": _path(line, to_x, to_y),
                "dots": _dots(line, to_x, to_y) if line.marks else [],
            }
            for line in sorted(lines, key=lambda line: not line.faint)
        ],
    )


def render_template(name: str, **values: Any) -> Markup:
    """Fill a template of this folder. All values are escaped, except what this function returned."""
    return Markup(_environment().get_template(name).render(**values, colours=COLOURS))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value, None) if type(value) is str else value,
    )
    environment.filters.update(percent=percent, p_value=p_value, shortened=lambda text: visible(str(text)))
    return environment


def smoothed(points: Sequence[Point], window: int) -> list[Point]:
    """Centred moving average over finite values. At the ends the outer half of the window is missing."""
    finite = [point for point in points if math.isfinite(point[1])]
    half = window // 2
    around = [finite[max(0, i - half) : i + half + 1] for i in range(len(finite))]
    return [(at, sum(v for _, v in near) / len(near)) for (at, _), near in zip(finite, around, strict=True)]


def nice_ticks(low: float, high: float, whole: bool = False, wanted: int = 5) -> list[float]:
    """Round numbers that cover a range: steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / wanted
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


_Scale = Callable[[float], float]


def _scale(axis: ChartAxis, values: Sequence[float], start: float, end: float) -> tuple[_Scale, list[float]]:
    finite = [value for value in values if math.isfinite(value)]
    low, high = axis.range or (min(finite, default=0.0), max(finite, default=1.0))
    ticks = [value for value, _ in axis.names] or nice_ticks(low, high, axis.whole)
    if axis.whole:  # steps end where the run ends, not at a round number
        ticks = [tick for tick in ticks if low <= tick <= high] or [low]
    else:
        low, high = ticks[0], ticks[-1]
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return (lambda value: start + (value - low) / (high - low) * (end - start)), ticks


def _tick(value: float, axis: ChartAxis, ticks: Sequence[float]) -> str:
    if axis.names:
        return dict(axis.names)[value]
    if axis.percent:
        return f"{100 * value:.0f} %"
    if axis.whole:
        return f"{value:,.0f}"
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else 1.0
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}".replace("-", "\u2212")


def _path(line: ChartLine, to_x: _Scale, to_y: _Scale) -> str:
    stride = math.ceil(len(line.points) / _MAX_POINTS) or 1  # a page with ten long runs stays small
    points = [*line.points[:-1:stride], *line.points[-1:]]
    commands, pen = [], "M"
    for x, y in points:
        finite = math.isfinite(x) and math.isfinite(y)
        if finite:
            commands.append(f"{pen}{to_x(x):.1f} {to_y(y):.1f}")
        pen = "L" if finite else "M"
    return "".join(commands)


def _band(line: ChartLine, to_x: _Scale, to_y: _Scale) -> str:
    rows = [row for row in line.band if all(map(math.isfinite, row))]
    edge = [(x, high) for x, _, high in rows] + [(x, low) for x, low, _ in reversed(rows)]
    return ",".join(f"{to_x(x):.1f} {to_y(y):.1f}" for x, y in edge) if len(rows) > 1 else ""


def _dots(line: ChartLine, to_x: _Scale, to_y: _Scale) -> list[tuple[float, float, str, bool]]:
    marked = enumerate(zip(line.points, line.marks, strict=True))
    return [
        (round(to_x(x), 1), round(to_y(y), 1), text, i == 0)
        for i, ((x, y), text) in marked
        if math.isfinite(x) and math.isfinite(y)
    ]
