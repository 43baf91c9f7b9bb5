"""Line charts as inline SVG. Colours are CSS variables of the page, ``--s0`` to ``--s9``: both schemes are served."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from verl_air.evaluation.untrusted import visible

COLOURS = 10
WIDTH, HEIGHT = 380, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 38
_MAX_POINTS = 240

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart. Points with a value that is not finite break it.

    colour: number of the colour; beyond ``COLOURS`` they return, dashed.
    band: (x, low, high) around it.
    faint: drawn thin and pale, and not named in the legend: the raw data behind a smoothed line.
    marks: a dot at each point, hollow at the first one; the text is shown on hovering.
    """

    name: str
    points: Sequence[Point]
    colour: int = 0
    band: Sequence[tuple[float, float, float]] = ()
    faint: bool = False
    marks: Sequence[str] = ()


@dataclass(frozen=True)
class Axis:
    """Label and, where it is fixed, range of an axis.

    percent: ticks are shown as shares. whole: ticks are whole numbers, and the axis ends where the values do. names:
    ticks at values of one's own and what is written there, for a scale that is not linear; the axis ends where they do.
    """

    label: str
    range: tuple[float, float] | None = None
    percent: bool = False
    whole: bool = False
    names: tuple[tuple[float, str], ...] = ()


def line_chart(lines: Sequence[Line], x: Axis, y: Axis, title: str) -> str:
    """An ``<svg>`` element; title: read by screen readers."""
    to_x, ticks_x = _scale(x, [p[0] for line in lines for p in line.points], _LEFT, WIDTH - _RIGHT)
    values = [v for line in lines for p in line.points for v in p[1:]]
    values += [v for line in lines for b in line.band for v in b[1:]]
    to_y, ticks_y = _scale(y, values, HEIGHT - _BOTTOM, _TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_text(title)}">']
    parts += [_grid_y(to_y(value), _tick(value, y, ticks_y)) for value in ticks_y]
    parts += [_tick_x(to_x(value), _tick(value, x, ticks_x)) for value in ticks_x]
    middle_x, middle_y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(f'<text class="label" x="{middle_x:g}" y="{HEIGHT - 5}" text-anchor="middle">{_text(x.label)}</text>')
    parts.append(
        f'<text class="label" transform="translate(11 {middle_y:g}) rotate(-90)" text-anchor="middle">'
        f"{_text(y.label)}</text>"
    )
    parts += [_band(line, to_x, to_y) for line in lines if line.band]
    parts += [_path(line, to_x, to_y) for line in sorted(lines, key=lambda line: not line.faint)]
    parts += [_dots(line, to_x, to_y) for line in lines if line.marks]
    return "".join([*parts, "</svg>"])


def smoothed(points: Sequence[Point], window: int) -> list[Point]:
    """Centred moving average over finite values. At the ends the outer half of the window is missing."""
    finite = [point for point in points if math.isfinite(point[1])]
    half = window // 2
    result = []
    for i, (at, _) in enumerate(finite):
        around = finite[max(0, i - half) : i + half + 1]
        result.append((at, sum(value for _, value in around) / len(around)))
    return result


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


def _scale(
    axis: Axis, values: Sequence[float], start: float, end: float
) -> tuple[Callable[[float], float], list[float]]:
    finite = [value for value in values if math.isfinite(value)]
    low, high = axis.range or (min(finite, default=0.0), max(finite, default=1.0))
    ticks = [value for value, _ in axis.names] or nice_ticks(low, high, axis.whole)
    if axis.whole:  # steps end where the run ends, not at a round number
        ticks = [tick for tick in ticks if low <= tick <= high] or [low]
        low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    else:
        low, high = ticks[0], ticks[-1]
        if high == low:  # a single named tick
            low, high = low - 0.5, high + 0.5
    return (lambda value: start + (value - low) / (high - low) * (end - start)), ticks


def _tick(value: float, axis: Axis, ticks: Sequence[float]) -> str:
    if axis.names:
        return _text(dict(axis.names)[value])
    if axis.percent:
        return f"{100 * value:.0f} %"
    if axis.whole:
        return f"{value:,.0f}"
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else 1.0
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}".replace("-", "\u2212")


def _grid_y(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'
    )


def _tick_x(x: float, text: str) -> str:
    y = HEIGHT - _BOTTOM
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>'
        f'<text x="{x:.1f}" y="{y + 15}" text-anchor="middle">{text}</text>'
    )


def _thin(points: Sequence[Point]) -> list[Point]:
    """At most ``_MAX_POINTS``: a page with ten long runs stays small."""
    stride = math.ceil(len(points) / _MAX_POINTS) or 1
    return [*points[:-1:stride], *points[-1:]] if stride > 1 else list(points)


def _path(line: Line, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> str:
    commands, pen = [], "M"
    for x, y in _thin(line.points):
        if math.isfinite(y) and math.isfinite(x):
            commands.append(f"{pen}{to_x(x):.1f} {to_y(y):.1f}")
            pen = "L"
        else:
            pen = "M"
    classes = ["line", *(["faint"] if line.faint else []), *(["dashed"] if line.colour >= COLOURS else [])]
    return f'<path class="{" ".join(classes)}" style="{_colour(line)}" d="{"".join(commands)}"/>' if commands else ""


def _band(line: Line, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> str:
    rows = [row for row in line.band if all(map(math.isfinite, row))]
    edge = [f"{to_x(x):.1f} {to_y(high):.1f}" for x, _, high in rows]
    edge += [f"{to_x(x):.1f} {to_y(low):.1f}" for x, low, _ in reversed(rows)]
    return f'<polygon class="band" style="{_colour(line)}" points="{",".join(edge)}"/>' if len(rows) > 1 else ""


def _dots(line: Line, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> str:
    dots = [
        f'<circle class="dot{" first" if not i else ""}" style="{_colour(line)}" cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" '
        f'r="3"><title>{_text(text)}</title></circle>'
        for i, ((x, y), text) in enumerate(zip(line.points, line.marks, strict=True))
        if math.isfinite(x) and math.isfinite(y)
    ]
    return "".join(dots)


def _text(text: str) -> str:
    return escape(visible(text, limit=None))


def _colour(line: Line) -> str:
    return f"--c:var(--s{line.colour % COLOURS})"
