"""Tables for a terminal, and for a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from verl_air.evaluation.breakdown import Section
from verl_air.evaluation.comparison import Comparison
from verl_air.evaluation.estimates import Estimates
from verl_air.evaluation.intervals import Estimate
from verl_air.evaluation.seeds import SeedDifference, SeedRow
from verl_air.evaluation.untrusted import visible

_TITLES = {
    ("role", "anchor"): "anchors",
    ("role", "open"): "open variants",
    ("harm", "harmful"): "harmful intents, open",
    ("harm", "benign"): "benign intents, open",
}


def part_title(kind: str, name: str) -> str:
    """What a line of the table is called."""
    return _TITLES.get((kind, name), f"framing {visible(name)}" if kind in ("family", "context") else name)


def percent(value: float | None, digits: int = 1) -> str:
    """``62.1 %``, or a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def interval(estimate: Estimate) -> str:
    """``62.1 % [52.8, 72.3]``, or a dash."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{percent(estimate.value)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def p_value(p: float) -> str:
    """``p = 0.034``, or ``p < 0.001``: more digits would promise more than a test can keep."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def points(estimate: Estimate) -> str:
    """A difference: ``+5.8 points [+1.3, +10.6]``; without an interval where there is none."""
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:+.1f} points"
    return f"{100 * estimate.value:+.1f} points [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def format_sections(sections: Iterable[Section]) -> str:
    """The breakdown; group accuracy only where a line holds several prompts of an intent."""
    rows: list[Sequence[str]] = [("", "intents", "accuracy", "group accuracy", "consistent", "no verdict")]
    for section in sections:
        new = "" if section.novelty in ((), ("unknown",)) else f": {', '.join(section.novelty)}"
        rows.append(())
        rows.append(_row(f"{visible(section.name)}{new}", section.whole))
        for part in section.parts:
            single = part.kind in ("family", "context")
            rows.append(_row(f"  {part_title(part.kind, part.name)}", part.estimates, groups=not single))
    return align(rows)


def format_comparisons(comparisons: Iterable[Comparison]) -> str:
    """Paired differences, B - A."""
    blocks = []
    for c in comparisons:
        discordant = "" if c.only_a is None else f"; {c.only_a} intents right in A only, {c.only_b} in B only"
        left_out = f" ({c.left_out} left out: not in both, not judged whole, or other prompts)" if c.left_out else ""
        rows = [
            ("", "A", "B", "B - A"),
            ("  group accuracy", percent(c.groups_a), percent(c.groups_b), points(c.groups)),
            ("  accuracy", percent(c.prompts_a), percent(c.prompts_b), points(c.prompts)),
        ]
        title = f"{visible(c.name)}: {c.intents} intents in both{left_out}"
        blocks.append(f"{title}\n{align(rows)}\n  {c.test} {p_value(c.p)}{discordant}")
    return "\n\n".join(blocks)


def format_seed_rows(rows: Iterable[SeedRow]) -> str:
    """Methods over seeds, a block for each domain and split."""
    table: list[Sequence[str]] = [("", "seeds", "end point", "mean over steps", "steps to threshold", "got there")]
    source = None
    for row in rows:
        if row.source != source:
            source = row.source
            table += [(), (f"{visible(source)}: {row.metric}",)]
        cells = (interval_or_value(row.end), interval_or_value(row.area), plain(row.steps))
        table.append((f"  {visible(row.method)}", str(row.seeds), *cells, f"{row.reached} of {row.seeds}"))
    return align(table)


def format_seed_differences(pairs: Iterable[SeedDifference]) -> str:
    """Differences between methods on the same seeds."""
    table: list[Sequence[str]] = [("", "seeds", "end point", "p", "mean over steps", "p", "steps", "ahead")]
    for d in pairs:
        p_end, p_area = ("-" if p is None else p_value(p).removeprefix("p = ") for p in (d.p_end, d.p_area))
        title = f"{visible(d.source)}: {visible(d.method)} minus {visible(d.against)}"
        ahead = f"{d.ahead} of {d.seeds}"
        table.append((title, str(d.seeds), points(d.end), p_end, points(d.area), p_area, plain(d.steps, "+"), ahead))
    return align(table)


def interval_or_value(estimate: Estimate) -> str:
    """As :func:`interval`; the bare value where there is no interval, as with a single seed. Cut to 0 to 100 %."""
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value)
    return interval(replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high)))


def plain(estimate: Estimate, sign: str = "") -> str:
    """A number of steps: ``34 [28, 40]``."""
    if estimate.value is None:
        return "-"
    inside = "" if estimate.low is None else f" [{estimate.low:{sign}.0f}, {estimate.high:{sign}.0f}]"
    return f"{estimate.value:{sign}.0f}{inside}"


def _row(title: str, e: Estimates, groups: bool = True) -> tuple[str, ...]:
    return (
        title,
        str(e.intents),
        interval(e.prompts),
        interval(e.groups) if groups else "",
        percent(e.consistent.value) if groups else "",
        percent(e.abstained),
    )


def markdown_table(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown; its first row is the head."""
    head, *body = table
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


def align(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table for a terminal: first columns to the left, the others to the right; an empty row is an empty line."""
    columns = max(len(row) for row in rows)
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(columns)]
    lines = []
    for row in rows:
        cells = [
            f"{cell:<{width}}" if i < left else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
