"""Methods over several seeds: curves of each run, means over seeds with intervals, and paired differences.

Only runs with other seeds tell how another run of a method would have ended. The interval is Student's t over runs
(``verl_air.evaluation.statistics``). If all runs share their held-out intents, it is about further seeds on these
intents; if every seed has intents of its own, as in the experiment, it is about new intents too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from verl_air.errors import DataError
from verl_air.evaluation.breakdown import Section, breakdown
from verl_air.evaluation.metrics import ALL_DOMAINS
from verl_air.evaluation.run_folder import RunFolder
from verl_air.evaluation.statistics import Estimate, mean_over_seeds, paired_t

Curve: TypeAlias = dict[int, float]
"""A value by training step."""

Curves: TypeAlias = dict[str, dict[str, Curve]]
"""Of a run: by ``domain/split``, then by metric (:data:`METRICS`)."""

METRICS = ("group_acc", "acc", "anchor_acc", "open_acc", "harmful_acc", "benign_acc", "abstained")
"""Of a validation; ``harmful_acc`` and ``benign_acc`` are over open rows."""

BySeed: TypeAlias = Mapping[int, Curves]
"""One method: the curves of its runs, by seed."""


def curves_of(run: RunFolder) -> Curves:
    """Curves from the validations that a run stored; a validation that was cut off is left out."""
    return curves_from({step: breakdown(rollouts, intervals=False) for step, rollouts in run.whole_validations()})


def curves_from(validations: Mapping[int, Iterable[Section]]) -> Curves:
    """Curves from the tables of each step; what has nothing to average is left out."""
    curves: Curves = defaultdict(lambda: defaultdict(dict))
    for step, sections in sorted(validations.items()):
        for section in sections:
            if section.domain != ALL_DOMAINS:
                for metric, value in _metrics(section).items():
                    if value is not None:
                        curves[section.name][metric][step] = value
    return {source: dict(metrics) for source, metrics in sorted(curves.items())}


_LINES = {"anchor_acc": ("role", "anchor"), "open_acc": ("role", "open"),
          "harmful_acc": ("harm", "harmful"), "benign_acc": ("harm", "benign")}  # fmt: skip


def _metrics(section: Section) -> dict[str, float | None]:
    whole, lines = section.whole, {metric: section.line(*line) for metric, line in _LINES.items()}
    values = {metric: line.prompts.value for metric, line in lines.items() if line}
    return {"group_acc": whole.groups.value, "acc": whole.prompts.value, **values, "abstained": whole.abstained}


def area_under(curve: Mapping[int, float], steps: Sequence[int]) -> float:
    """Mean height of a curve between the first and the last of these steps, straight lines between validations.

    Raises:
        DataError: a step is missing, or there is only one.
    """
    values = _values(curve, steps)
    if len(steps) < 2:
        raise DataError("the area under a curve needs validations at two steps at least; lower trainer.test_freq")
    pieces = zip(steps, steps[1:], values, values[1:], strict=False)
    return sum((b - a) * (u + v) / 2 for a, b, u, v in pieces) / (steps[-1] - steps[0])


@dataclass(frozen=True)
class SeedRow:
    """One method on one ``domain/split``, in one metric.

    end: at the last step. area: mean height of the curve.
    """

    method: str
    source: str
    metric: str
    seeds: int
    end: Estimate
    area: Estimate


@dataclass(frozen=True)
class SeedDifference:
    """``method`` minus ``against`` on the seeds that both have.

    ahead: seeds in which ``method`` ends higher. p_end, p_area: two-sided, paired t; None with fewer than two seeds, or
    if all differences are equal.
    """

    method: str
    against: str
    source: str
    metric: str
    seeds: int
    end: Estimate
    area: Estimate
    ahead: int
    p_end: float | None
    p_area: float | None


def seed_rows(methods: Mapping[str, BySeed], source: str, metric: str) -> list[SeedRow]:
    """One row per method, over the steps at which every run was validated.

    Raises:
        DataError: a run lacks the metric, or the runs have fewer than two steps in common.
    """
    steps = _common_steps(methods, source, metric)
    rows = []
    for name, runs in methods.items():
        curves = [by_source[source][metric] for by_source in runs.values()]
        end = mean_over_seeds([curve[steps[-1]] for curve in curves])
        area = mean_over_seeds([area_under(curve, steps) for curve in curves])
        rows.append(SeedRow(name, source, metric, len(curves), end, area))
    return rows


def seed_differences(methods: Mapping[str, BySeed], against: str, source: str, metric: str) -> list[SeedDifference]:
    """Every other method compared with one, paired by seed; a method without a seed in common is left out.

    Raises:
        DataError: see :func:`seed_rows`; or there is no method ``against``.
    """
    if against not in methods:
        raise DataError(f"there is no method {against!r}; known: {', '.join(methods)}")
    steps = _common_steps(methods, source, metric)
    found = []
    for name, runs in methods.items():
        seeds = sorted(set(runs) & set(methods[against]))
        if name == against or not seeds:
            continue
        pairs = [(runs[seed][source][metric], methods[against][seed][source][metric]) for seed in seeds]
        ends = [ours[steps[-1]] - theirs[steps[-1]] for ours, theirs in pairs]
        areas = [area_under(ours, steps) - area_under(theirs, steps) for ours, theirs in pairs]
        end, area, ahead = mean_over_seeds(ends), mean_over_seeds(areas), sum(end > 0 for end in ends)
        p_end, p_area = paired_t(ends), paired_t(areas)
        found.append(SeedDifference(name, against, source, metric, len(seeds), end, area, ahead, p_end, p_area))
    return found


@dataclass(frozen=True)
class SeedTables:
    """What a report says of methods over seeds, on every ``domain/split`` that all runs have.

    rows: in each metric that all runs have. differences: of the other methods from the first one, in the same.
    """

    methods: tuple[str, ...]
    rows: list[SeedRow]
    differences: list[SeedDifference]


def seed_tables(methods: Mapping[str, BySeed]) -> SeedTables:
    """All tables; a metric that some run lacks (nothing was judged) is left out.

    Raises:
        DataError: the runs have no ``domain/split`` in common, or fewer than two steps.
    """
    runs = [curves for by_seed in methods.values() for curves in by_seed.values()]
    sources = [source for source in runs[0] if all(source in curves for curves in runs)]
    if not sources:
        raise DataError("the runs have no validation of one domain and split in common")
    tables = SeedTables(tuple(methods), [], [])
    for source in sources:
        for metric in runs[0][source]:
            if all(metric in curves[source] for curves in runs):
                tables.rows.extend(seed_rows(methods, source, metric))
                tables.differences.extend(seed_differences(methods, tables.methods[0], source, metric))
    return tables


def seed_of_run(run: RunFolder) -> int | None:
    """``data.seed`` of the stored recipe."""
    seed = (run.config.get("data") or {}).get("seed")
    return seed if isinstance(seed, int) else None


def paper_table(rows: Iterable[SeedRow], write: Callable[[Estimate], str]) -> list[list[str]]:
    """The paper's table: a line per split and method, a column per domain, ``accuracy / group accuracy`` at the end.

    Args:
        rows: of several ``domain/split``; those of other metrics are ignored. A method that was not measured somewhere
            has a dash there.
        write: writes an estimate.

    Returns:
        The head, then splits in the order of their names, and methods and domains in the order of the rows.
    """
    measured = [(*row.source.rpartition("/")[::2], row) for row in rows if row.metric in ("acc", "group_acc")]
    found = {(split, row.method, domain, row.metric): row for domain, split, row in measured}
    domains = dict.fromkeys(domain for domain, _, _ in measured)
    table = [["split", "method", "seeds", *(domain or "accuracy / group accuracy" for domain in domains)]]
    lines = dict.fromkeys((split, row.method) for _, split, row in measured)
    for line in sorted(lines, key=lambda line: line[0]):  # stable: methods keep their order
        pairs = [[found.get((*line, domain, metric)) for metric in ("acc", "group_acc")] for domain in domains]
        seeds = max(row.seeds for pair in pairs for row in pair if row)
        cells = [" / ".join(write(row.end) for row in pair if row) or "-" for pair in pairs]
        table.append([*line, str(seeds), *cells])
    return table


def _common_steps(methods: Mapping[str, BySeed], source: str, metric: str) -> list[int]:
    steps = []
    for name, runs in methods.items():
        for seed, curves in runs.items():
            if metric not in curves.get(source, {}):
                known = ", ".join(f"{place} {found}" for place, metrics in curves.items() for found in metrics)
                missing = f"no {metric} of {source} was stored; there is {known or 'nothing'}"
                raise DataError(f"{name}, seed {seed}: {missing}")
            steps.append(set(curves[source][metric]))
    common = sorted(set.intersection(*steps)) if steps else []
    if len(common) < 2:
        raise DataError(f"{source}: the runs have {len(common)} step(s) with {metric} in common; two are needed")
    return common


def _values(curve: Mapping[int, float], steps: Sequence[int]) -> list[float]:
    if missing := [step for step in steps if step not in curve]:
        raise DataError(f"no validation at step {missing[0]}; the curve has steps {', '.join(map(str, sorted(curve)))}")
    return [curve[step] for step in steps]
