"""Several runs of each method: means over seeds with intervals, and differences between methods on the same seeds.

The unit is the training run. An interval over intents (``verl_air.evaluation.intervals``) answers how sure one policy's
accuracy is; only runs with other seeds tell how another run of the method would have ended. The interval is Student's t
over runs: each run's number carries the noise of its own intents and completions already, so nothing needs to be
resampled within a run. Bootstraps were tried beside it and are too narrow with few seeds: with three that differ much
one over seeds covers 78 %, one over seeds and intents 85 %, where t covers 95 % (``tests/evaluation/test_seeds.py``).

If all runs share their held-out intents, the interval is about further seeds on these intents. If every seed has
a world and intents of its own, as in the experiment, it is about new intents too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import TypeAlias

from verl_air.errors import DataError
from verl_air.evaluation.curves import Curve, Curves, area_under, steps_to
from verl_air.evaluation.intervals import LEVEL, NOTHING, Estimate
from verl_air.evaluation.student import central_probability, two_sided_quantile

BySeed: TypeAlias = Mapping[int, Curves]
"""One method: the curves of its runs, by seed."""


@dataclass(frozen=True)
class SeedRow:
    """One method on one ``domain/split``, in one metric.

    end: at the last step. area: mean height of the curve. steps: steps to the threshold; a run that never gets there
    counts with the last step, so the mean is a lower bound, and its interval is cut to the steps that there are.
    reached: how many runs got there, of ``seeds``.
    """

    method: str
    source: str
    metric: str
    seeds: int
    end: Estimate
    area: Estimate
    steps: Estimate
    reached: int


@dataclass(frozen=True)
class SeedDifference:
    """``method`` minus ``against`` on the seeds that both have.

    ahead: seeds in which ``method`` ends higher. p_end, p_area: two-sided, paired t; None with fewer than two seeds, or
    if all differences are alike.
    """

    method: str
    against: str
    source: str
    metric: str
    seeds: int
    end: Estimate
    area: Estimate
    steps: Estimate
    ahead: int
    p_end: float | None
    p_area: float | None


def mean_over_seeds(values_R: Sequence[float], level: float = LEVEL) -> Estimate:
    """Mean and t interval of one number a run.

    Without an interval for a single run, and where all runs agree exactly: their spread cannot be estimated then, and
    an interval of no width would be a lie.
    """
    n = len(values_R)
    if n == 0:
        return NOTHING
    mean = fmean(values_R)
    if n == 1 or max(values_R) - min(values_R) < 1e-12:
        return Estimate(mean, None, None, n, "none")
    half = two_sided_quantile(level, n - 1) * stdev(values_R) / n**0.5
    return Estimate(mean, mean - half, mean + half, n, "t")


def p_of(differences_R: Sequence[float]) -> float | None:
    """Two-sided p of no mean difference, paired t."""
    n = len(differences_R)
    if n < 2 or max(differences_R) - min(differences_R) < 1e-12:
        return None
    return 1 - central_probability(abs(fmean(differences_R)) / (stdev(differences_R) / n**0.5), n - 1)


def common_steps(methods: Mapping[str, BySeed], source: str, metric: str) -> list[int]:
    """Steps at which every run was validated.

    Raises:
        DataError: there are fewer than two.
    """
    curves = [
        _curve(runs[seed], source, metric, f"{name}, seed {seed}") for name, runs in methods.items() for seed in runs
    ]
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    if len(steps) < 2:
        raise DataError(f"{source}: the runs have {len(steps)} validation step(s) in common; two are needed")
    return steps


def seed_rows(
    methods: Mapping[str, BySeed], source: str, metric: str, threshold: float, level: float = LEVEL
) -> list[SeedRow]:
    """One row a method.

    Raises:
        DataError: a run lacks the metric, or the runs have no steps in common.
    """
    steps = common_steps(methods, source, metric)
    rows = []
    for name, runs in methods.items():
        curves = [runs[seed][source][metric] for seed in sorted(runs)]
        end, area, to = (mean_over_seeds([of(curve) for curve in curves], level) for of in _summaries(steps, threshold))
        reached = sum(steps_to(curve, threshold, steps) is not None for curve in curves)
        to = _within(to, steps[0], steps[-1])
        rows.append(SeedRow(name, source, metric, len(curves), end, area, to, reached))
    return rows


def seed_differences(
    methods: Mapping[str, BySeed], against: str, source: str, metric: str, threshold: float, level: float = LEVEL
) -> list[SeedDifference]:
    """Every other method against one, paired by seed; a method without a seed in common is left out.

    Raises:
        DataError: see :func:`seed_rows`; or there is no method ``against``.
    """
    if against not in methods:
        raise DataError(f"there is no method {against!r}; known: {', '.join(methods)}")
    steps = common_steps(methods, source, metric)
    found = []
    for name, runs in methods.items():
        seeds = sorted(set(runs) & set(methods[against]))
        if name == against or not seeds:
            continue
        pairs = [(runs[seed][source][metric], methods[against][seed][source][metric]) for seed in seeds]
        end, area, to = ([of(a) - of(b) for a, b in pairs] for of in _summaries(steps, threshold))
        found.append(
            SeedDifference(
                name,
                against,
                source,
                metric,
                len(seeds),
                mean_over_seeds(end, level),
                mean_over_seeds(area, level),
                mean_over_seeds(to, level),
                ahead=sum(value > 0 for value in end),
                p_end=p_of(end),
                p_area=p_of(area),
            )
        )
    return found


def _summaries(steps: Sequence[int], threshold: float) -> tuple[Callable[[Curve], float], ...]:
    """End point, area, and steps to the threshold, of a curve."""

    def to(curve: Curve) -> float:
        found = steps_to(curve, threshold, steps)
        return float(steps[-1]) if found is None else found

    return lambda curve: curve[steps[-1]], lambda curve: area_under(curve, steps), to


def _within(e: Estimate, low: float, high: float) -> Estimate:
    """The interval without what cannot be: t knows no bounds."""
    return e if e.low is None or e.high is None else replace(e, low=max(low, e.low), high=min(high, e.high))


def _curve(curves: Curves, source: str, metric: str, where: str) -> Curve:
    try:
        return curves[source][metric]
    except KeyError:
        known = ", ".join(f"{place} {name}" for place, metrics in curves.items() for name in metrics)
        raise DataError(f"{where}: no {metric} of {source} was stored; there is {known or 'nothing'}") from None
