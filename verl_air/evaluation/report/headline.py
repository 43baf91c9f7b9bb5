"""The table on top of the page, and the sentences above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verl_air.evaluation.comparison import Comparison
from verl_air.evaluation.intervals import NOTHING, Estimate
from verl_air.evaluation.meta_groups import ALL_DOMAINS
from verl_air.evaluation.report.run_summary import Report, RunSummary
from verl_air.evaluation.text_table import p_value, percent, points

_FEW = 3
"""Runs that are still compared in sentences; more are read off the table."""


@dataclass(frozen=True)
class Row:
    """One run on one domain and split, at its last validation.

    harmful, benign: accuracy on open rows of harmful and benign intents, where the domain tells them apart.
    change: against its first validation; against_first: against the first run of the report.
    """

    source: str
    run: str
    colour: int
    step: int
    intents: int
    groups: Estimate
    prompts: Estimate
    consistent: Estimate
    harmful: Estimate
    benign: Estimate
    change: Comparison | None = None
    against_first: Comparison | None = None


def headline(report: Report) -> dict[str, list[Row]]:
    """Rows by source, runs in the order given; runs without that validation are left out."""
    table = {}
    for source in report.sources:
        rows = [_row(report, run, number, source) for number, run in enumerate(report.runs)]
        if found := [row for row in rows if row is not None]:
            table[source] = found
    return table


def novelty_of_sources(report: Report) -> dict[str, str]:
    """What is new in each domain and split, where it is known."""
    found: dict[str, str] = {}
    for run in report.runs:
        for section in run.last:
            if section.novelty and section.novelty != ("unknown",):
                found.setdefault(section.name, ", ".join(section.novelty))
    return found


def sentences(report: Report) -> list[tuple[str, str]]:
    """What a reader in a hurry should take away: (verdict, sentence) on group accuracy in each domain and split."""
    if len(report.runs) == 1:
        run = report.runs[0]
        compared = [(c, f"at step {run.first_step}", f"at step {run.last_step}") for c in run.change]
    else:
        pairs = report.against_first.items() if len(report.runs) <= _FEW else ()
        compared = [(c, f"in {report.runs[0].name}", f"in {name}") for name, found in pairs for c in found]
    pooled = [item for item in compared if item[0].domain == ALL_DOMAINS]
    return [
        (
            verdict(c),
            f"{c.name}: group accuracy {percent(c.groups_a)} {a}, {percent(c.groups_b)} {b} "
            f"({points(c.groups)} on the same {c.intents} intents, {p_value(c.p)}): {verdict(c)}.",
        )
        for c, a, b in pooled or compared
    ]


def verdict(comparison: Comparison) -> str:
    """``better``, ``worse`` or ``no clear difference``, at 5 %."""
    if comparison.p >= 0.05:
        return "no clear difference"
    return "better" if (comparison.groups.value or 0.0) > 0 else "worse"


def _row(report: Report, run: RunSummary, number: int, source: str) -> Row | None:
    section = next((section for section in run.last if section.name == source), None)
    if section is None or run.last_step is None:
        return _row_from_metrics(run, number, source)

    def part(kind: str, name: str) -> Estimate:
        found = section.part(kind, name)
        return found.prompts if found else NOTHING

    return Row(
        source=source,
        run=run.name,
        colour=number,
        step=run.last_step,
        intents=section.whole.intents,
        groups=section.whole.groups,
        prompts=section.whole.prompts,
        consistent=section.whole.consistent,
        harmful=part("harm", "harmful"),
        benign=part("harm", "benign"),
        change=_of(run.change, source),
        against_first=_of(report.against_first.get(run.name, ()), source),
    )


def _row_from_metrics(run: RunSummary, number: int, source: str) -> Row | None:
    """Without stored validations there are numbers but no intervals."""
    points_ = run.groups.get(source)
    if not points_ or run.last_step is not None:
        return None
    step = max(points_)
    return Row(source, run.name, number, step, 0, points_[step], NOTHING, NOTHING, NOTHING, NOTHING)


def _of(comparisons: Sequence[Comparison], source: str) -> Comparison | None:
    return next((comparison for comparison in comparisons if comparison.name == source), None)
