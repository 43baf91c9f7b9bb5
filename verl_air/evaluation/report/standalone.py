"""A chart of the report as a file of its own: with title, legend and colours, for light pages and dark ones."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from verl_air.evaluation.report.svg import HEIGHT, WIDTH, Line

_STYLE = """
svg { --line: #dfe3e8; --soft: #4d5766; background: #ffffff;
  --s0: #1b6ca8; --s1: #c8551b; --s2: #2a8653; --s3: #8a44ad; --s4: #b8325e; --s5: #687180; }
text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.grid { stroke: var(--line); } .line { fill: none; stroke: var(--c); stroke-width: 2; }
.band { fill: var(--c); opacity: .13; } .dot { fill: var(--c); } .faint { opacity: .35; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
  svg { --line: #333a45; --soft: #b4bdc9; background: #14171c;
    --s0: #6cb2eb; --s1: #f0945a; --s2: #63c58b; --s3: #c58fe0; --s4: #f07aa0; --s5: #a9b1bd; }
}
"""
_ROW = 16
_RIGHT = 12  # the name of a tick at the very end reaches beyond the chart


def standalone(chart: str, title: str, lines: Sequence[Line]) -> str:
    """The content of an ``.svg`` file.

    Args:
        chart: what :func:`~verl_air.evaluation.report.svg.line_chart` made.
        title: is written above the chart.
        lines: those of the chart, for the legend below it.
    """
    width, height = WIDTH + _RIGHT, HEIGHT + 26 + _ROW * len(lines)
    legend = "".join(
        f'<rect x="14" y="{HEIGHT + 30 + _ROW * i}" width="16" height="4" style="fill:var(--s{line.colour % 10})"/>'
        f'<text x="38" y="{HEIGHT + 36 + _ROW * i}">{escape(line.name)}</text>'
        for i, line in enumerate(lines)
    )
    body = chart[chart.index(">") + 1 : chart.rindex("</svg>")]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>'
        f'<text x="14" y="16" style="font-weight:600">{escape(title)}</text>'
        f'<g transform="translate(0 18)">{body}</g>{legend}</svg>\n'
    )
