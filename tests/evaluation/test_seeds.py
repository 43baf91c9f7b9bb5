"""Several runs of a method: t by known values, areas and steps by hand, and coverage by simulation."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verl_air.evaluation.curves import area_under, steps_to
from verl_air.evaluation.student import central_probability, two_sided_quantile

from verl_air.errors import DataError
from verl_air.evaluation.seeds import mean_over_seeds, p_of, seed_differences, seed_rows

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=6)
LEVEL, SIMULATIONS = 0.95, 2000
SLACK = 3 * math.sqrt(LEVEL * (1 - LEVEL) / SIMULATIONS)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert two_sided_quantile(0.95, freedom) == pytest.approx(quantile, abs=1e-4)


@settings(deadline=None)
@given(freedom=st.integers(1, 40), t=st.floats(0, 50))
def test_the_distribution_is_the_integral_of_its_density(freedom: int, t: float) -> None:
    x = np.linspace(0, t, 20_001)
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    density = constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    assert central_probability(t, freedom) == pytest.approx(2 * float(np.trapezoid(density, x)), abs=1e-5)


def test_areas_and_steps_by_hand() -> None:
    curve = {10: 0.2, 20: 0.4, 40: 0.8}
    assert area_under(curve, [10, 20, 40]) == pytest.approx((10 * 0.3 + 20 * 0.6) / 30)
    assert steps_to(curve, 0.6, [10, 20, 40]) == pytest.approx(30)
    assert steps_to(curve, 0.1, [10, 20, 40]) == 10
    assert steps_to(curve, 0.9, [10, 20, 40]) is None
    assert steps_to({10: 0.2, 20: 0.7, 40: 0.1}, 0.7, [10, 20, 40]) == pytest.approx(20)
    with pytest.raises(DataError, match="no validation at step 30"):
        area_under(curve, [10, 30])
    with pytest.raises(DataError, match="two steps"):
        area_under(curve, [10])


@settings(deadline=None)
@given(values=SHARES)
def test_an_area_lies_within_its_curve_and_a_flat_one_is_its_height(values: list[float]) -> None:
    steps = list(range(0, 10 * len(values), 10))
    curve = dict(zip(steps, values, strict=True))
    assert min(values) - 1e-9 <= area_under(curve, steps) <= max(values) + 1e-9
    assert area_under(dict.fromkeys(steps, values[0]), steps) == pytest.approx(values[0])


@settings(deadline=None)
@given(values=SHARES, threshold=st.floats(0, 1))
def test_the_step_to_a_threshold_is_where_the_lines_first_cross_it(values: list[float], threshold: float) -> None:
    steps = list(range(0, 10 * len(values), 10))
    found = steps_to(dict(zip(steps, values, strict=True)), threshold, steps)
    if found is None:
        assert max(values) < threshold
    else:
        height = float(np.interp(found, steps, values))
        assert height >= threshold - 1e-9
        before = np.linspace(steps[0], found, 50)[:-1]
        assert (np.interp(before, steps, values) <= threshold + 1e-9).all() or found == steps[0]


def test_no_interval_is_made_up() -> None:
    assert mean_over_seeds([]).value is None
    assert mean_over_seeds([0.4]).low is None
    same = mean_over_seeds([0.5, 0.5, 0.5])
    assert (same.value, same.low, same.n) == (0.5, None, 3)
    assert p_of([0.1, 0.1]) is None
    assert p_of([0.1, -0.1]) == pytest.approx(1.0)


def test_rows_and_differences_are_over_the_seeds_that_are_there() -> None:
    def run(*values: float) -> dict[str, dict[str, dict[int, float]]]:
        return {"lab/id": {"group_acc": dict(zip((0, 10, 20), values, strict=True))}}

    methods = {
        "a": {1: run(0.2, 0.4, 0.6), 2: run(0.2, 0.2, 0.2)},
        "b": {1: run(0.2, 0.6, 0.8), 2: run(0.2, 0.4, 0.6), 3: run(0.9, 0.9, 0.9)},
    }
    a, b = seed_rows(methods, "lab/id", "group_acc", 0.5)
    assert (a.seeds, a.reached, b.reached) == (2, 1, 3)
    assert a.end.value == pytest.approx(0.4)
    assert a.steps.value == pytest.approx((15 + 20) / 2)
    assert (a.steps.low, a.steps.high) == (0, 20)  # two runs 5 steps apart: t alone says -14 to 49
    (difference,) = seed_differences(methods, "a", "lab/id", "group_acc", 0.5)
    assert (difference.method, difference.seeds, difference.ahead) == ("b", 2, 2)
    assert difference.end.value == pytest.approx((0.2 + 0.4) / 2)
    assert difference.area.value == pytest.approx((0.15 + 0.2) / 2)
    with pytest.raises(DataError, match="no method 'c'"):
        seed_differences(methods, "c", "lab/id", "group_acc", 0.5)
    with pytest.raises(DataError, match="no acc of lab/id"):
        seed_rows(methods, "lab/id", "acc", 0.5)


# ------------------------------------------------------------------------------------------ coverage, by simulation


def runs(
    rng: np.random.Generator, seeds: int, mean: float = 0.6, spread: float = 0.08, intents: int = 48
) -> np.ndarray:
    """Verdicts on whole groups, [seeds, intents]: runs differ in skill, and every seed has intents of its own."""
    skill_R = np.clip(rng.normal(mean, spread, size=seeds), 0.05, 0.95)
    return rng.random((seeds, intents)) < skill_R[:, None]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 10])
def test_t_over_seeds_covers(seeds: int) -> None:
    rng = np.random.default_rng(11)
    found = [mean_over_seeds(runs(rng, seeds).mean(axis=1).tolist()) for _ in range(SIMULATIONS)]
    covered = fmean(e.low is not None and e.high is not None and e.low <= 0.6 <= e.high for e in found)
    assert covered == pytest.approx(LEVEL, abs=SLACK)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 10])
def test_t_over_paired_differences_covers(seeds: int) -> None:
    """Two methods on the same worlds: a world's difficulty cancels, the luck of each training does not."""
    rng = np.random.default_rng(12)
    covered = []
    for _ in range(SIMULATIONS):
        world_R = rng.normal(0.0, 0.1, size=seeds)
        ends = [
            (rng.random((seeds, 48)) < np.clip(mean + world_R + rng.normal(0, 0.06, size=seeds), 0, 1)[:, None]).mean(1)
            for mean in (0.5, 0.6)
        ]
        e = mean_over_seeds((ends[1] - ends[0]).tolist())
        covered.append(e.low is not None and e.high is not None and e.low <= 0.1 <= e.high)
    assert fmean(covered) == pytest.approx(LEVEL, abs=SLACK)


@pytest.mark.slow
def test_a_bootstrap_is_too_narrow_with_three_seeds() -> None:
    """Why it is not used: over seeds alone, and over seeds and the intents within each where seeds differ much."""
    rng = np.random.default_rng(13)
    seeds_only, both = [], []
    for _ in range(600):
        right_RZ = runs(rng, 3, mean=0.5, spread=0.2)
        end_BR = right_RZ.mean(axis=1)[rng.integers(0, 3, size=(400, 3))]
        for covered, means_BR in ((seeds_only, end_BR), (both, rng.binomial(48, end_BR) / 48)):
            low, high = np.quantile(means_BR.mean(axis=1), [0.025, 0.975])
            covered.append(low <= 0.5 <= high)
    print(f"a bootstrap with three seeds covers {fmean(seeds_only):.3f}, with intents {fmean(both):.3f}")
    assert fmean(seeds_only) < 0.85
    assert fmean(both) < 0.88


@pytest.mark.slow
def test_intents_shared_by_all_seeds_are_not_in_the_interval() -> None:
    """A warning that the documentation gives: it then speaks about further seeds on these intents only."""
    rng = np.random.default_rng(14)
    on_these, on_all = [], []
    for _ in range(SIMULATIONS):
        p_Z = rng.beta(1.2, 0.8, size=48)  # mean 0.6
        e = mean_over_seeds((rng.random((10, 48)) < p_Z).mean(axis=1).tolist())
        assert e.low is not None
        assert e.high is not None
        on_these.append(e.low <= p_Z.mean() <= e.high)
        on_all.append(e.low <= 0.6 <= e.high)
    assert fmean(on_these) == pytest.approx(LEVEL, abs=SLACK)
    assert fmean(on_all) < 0.85
