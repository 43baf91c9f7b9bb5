"""The paper's table, of one's own runs: accuracy and group accuracy of each method, ID and OOD, by domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from verl_air.evaluation.intervals import Estimate
from verl_air.evaluation.seeds import SeedRow
from verl_air.evaluation.text_table import interval_or_value, percent

METRICS = ("acc", "group_acc")


def paper_table(rows: Iterable[SeedRow], intervals: bool = False) -> list[list[str]]:
    """A line a split and method, a column a domain; cells are ``accuracy / group accuracy`` at the end point.

    Args:
        rows: of several ``domain/split`` in both of :data:`METRICS`; rows of other metrics are passed over. A method
            that was not measured somewhere has a dash there.
        intervals: behind each mean its interval over seeds, where there is one.

    Returns:
        The head, then splits in the order of their names, and methods and domains in the order of the rows.
    """
    ends: dict[tuple[str, str, str, str], Estimate] = {}
    seeds: dict[tuple[str, str], int] = {}
    domains: dict[str, None] = {}
    for row in rows:
        if row.metric in METRICS:
            domain, _, split = row.source.rpartition("/")
            domains.setdefault(domain)
            ends[split, row.method, domain, row.metric] = row.end
            seeds[split, row.method] = max(row.seeds, seeds.get((split, row.method), 0))
    write = interval_or_value if intervals else _mean
    table = [["split", "method", "seeds", *(domain or "accuracy / group accuracy" for domain in domains)]]
    for split, method in sorted(seeds, key=lambda line: line[0]):  # stable: methods stay as they came
        found = [[ends.get((split, method, domain, metric)) for metric in METRICS] for domain in domains]
        cells = [_cell(pair, write) for pair in found]
        table.append([split, method, str(seeds[split, method]), *cells])
    return table


def _cell(pair: Iterable[Estimate | None], write: Callable[[Estimate], str]) -> str:
    known = [estimate for estimate in pair if estimate is not None]
    return " / ".join(map(write, known)) if known else "-"


def _mean(estimate: Estimate) -> str:
    return percent(estimate.value)
