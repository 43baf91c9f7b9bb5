"""Tables for a terminal and for Markdown, how numbers are written, and how untrusted text is sanitized.

Markup is escaped by jinja on the page. What escaping leaves is handled here: control characters, lone surrogates that
cannot be encoded, and marks that reverse the direction of the text around them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tabulate import tabulate

from verl_air.evaluation.breakdown import Estimates, Section
from verl_air.evaluation.comparison import Comparison
from verl_air.evaluation.seeds import SeedDifference, SeedRow
from verl_air.evaluation.statistics import Estimate

LIMIT = 1200
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_TITLES = {
    ("role", "anchor"): "anchors",
    ("role", "open"): "open variants",
    ("harm", "harmful"): "harmful intents, open",
    ("harm", "benign"): "benign intents, open",
}


def visible(text: str, limit: int | None = LIMIT) -> str:
    """The text with invisible characters spelled out (``\\u202e``), its middle left out beyond ``limit`` characters."""
    if limit is not None and len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} [... {len(text) - 2 * half} characters left out ...] {text[-half:]}"
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def in_markdown(text: str) -> str:
    """A name or text that must not break a table or be read as markup."""
    plain_text = visible(text.replace("\n", " "), limit=None)
    return plain_text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def percent(value: float | None, digits: int = 1) -> str:
    """``62.1 %``, or a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def interval(e: Estimate) -> str:
    """``62.1 % [52.8, 72.3]``, or a dash."""
    if e.value is None or e.low is None or e.high is None:
        return "-"
    return f"{percent(e.value)} [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def interval_or_value(e: Estimate) -> str:
    """As :func:`interval`, cut to 0 to 100 %; the value alone without an interval, as with a single seed."""
    if e.low is None or e.high is None:
        return percent(e.value)
    return interval(replace(e, low=max(0.0, e.low), high=min(1.0, e.high)))


def points(e: Estimate) -> str:
    """A difference: ``+5.8 points [+1.3, +10.6]``; without an interval where there is none."""
    if e.value is None:
        return "-"
    inside = "" if e.low is None or e.high is None else f" [{100 * e.low:+.1f}, {100 * e.high:+.1f}]"
    return f"{100 * e.value:+.1f} points{inside}"


def p_value(p: float) -> str:
    """``p = 0.034``, or ``p < 0.001``: more digits would promise more than a test can keep."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def line_title(kind: str, name: str) -> str:
    """What a line of the table is called."""
    return _TITLES.get((kind, name), f"framing {visible(name)}" if kind in ("family", "context") else name)


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """For a terminal: the first columns to the left, the others to the right; an empty row is an empty line."""
    table = [[*row, *[""] * (len(head) - len(row))] for row in (head, *rows)]  # as a head, tabulate pads it by two
    sides = ["left" if i < left else "right" for i in range(len(head))]
    return tabulate(table, tablefmt="plain", colalign=sides, disable_numparse=True, preserve_whitespace=True)


def markdown_table(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown; its first row is the head."""
    head, *body = table
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


SECTION_HEAD = ("", "intents", "accuracy", "group accuracy", "incomplete", "consistent", "no verdict")


def section_rows(section: Section) -> list[list[str]]:
    """A section and its lines; group accuracy only where a line has several prompts of an intent."""
    rows = [_line(visible(section.name), section.whole)]
    for line in section.lines:
        single = line.kind in ("family", "context")
        rows.append(_line(f"  {line_title(line.kind, line.name)}", line.estimates, groups=not single))
    return rows


def format_sections(sections: Sequence[Section]) -> str:
    """The breakdown for a terminal."""
    table = text_table(SECTION_HEAD, [row for section in sections for row in ([], *section_rows(section))])
    return f"{table}\n\n{UNSIZED}" if not all(section.sized for section in sections) else table


UNSIZED = "Older file: does not say whether rows are missing (no group_size and split_intents)."


def _line(title: str, e: Estimates, groups: bool = True) -> list[str]:
    of_groups = [interval(e.groups), str(e.incomplete), percent(e.consistent.value)] if groups else ["", "", ""]
    return [title, str(e.intents), interval(e.prompts), *of_groups, percent(e.abstained)]


def format_comparisons(comparisons: Iterable[Comparison]) -> str:
    """Paired differences, B - A."""
    blocks = []
    for c in comparisons:
        discordant = "" if c.only_a is None else f"; {c.only_a} intents right in A only, {c.only_b} in B only"
        incomplete = f", {c.incomplete} of them incomplete" if c.incomplete else ""
        left_out = f" ({c.left_out} left out: not in both, or with other prompts)" if c.left_out else ""
        rows = [
            ("  group accuracy", percent(c.groups_a), percent(c.groups_b), points(c.groups)),
            ("  accuracy", percent(c.prompts_a), percent(c.prompts_b), points(c.prompts)),
        ]
        title = f"{visible(c.name)}: {c.intents} intents in both{incomplete}{left_out}"
        blocks.append(f"{title}\n{text_table(('', 'A', 'B', 'B - A'), rows)}\n  {c.test} {p_value(c.p)}{discordant}")
    return "\n\n".join(blocks)


def seed_table(rows: Iterable[SeedRow]) -> list[list[str]]:
    """Methods over seeds, with a head."""
    head = ["source", "method", "seeds", "end point", "mean over steps"]
    return [head] + [
        [f"{r.source} {r.metric}", r.method, str(r.seeds), interval_or_value(r.end), interval_or_value(r.area)]
        for r in rows
    ]


def difference_table(differences: Iterable[SeedDifference]) -> list[list[str]]:
    """Differences between methods on the same seeds, with a head."""
    table = [["source", "methods", "seeds", "end point", "p", "mean over steps", "p", "ahead"]]
    for d in differences:
        p_end, p_area = ("-" if p is None else p_value(p).removeprefix("p = ") for p in (d.p_end, d.p_area))
        numbers = [points(d.end), p_end, points(d.area), p_area]
        name = f"{d.source} {d.metric}"
        table.append([name, f"{d.method} minus {d.against}", str(d.seeds), *numbers, f"{d.ahead} of {d.seeds}"])
    return table
