"""Intervals: published values, an analytic variance, and where they must not collapse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from verl_air.evaluation.statistics import (
    difference_of,
    mean_over_seeds,
    paired_t,
    ratio_of,
    resample,
    share_of,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 500), st.data())
def test_wilson_solves_its_equation_and_mirrors(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)
    share = successes / n
    ours = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((ours.low, ours.high), abs=1e-12)
    for end in (low, high):
        if 0 < end < 1:  # an end is where the share is z standard errors away, the standard error being the end's own
            assert abs(share - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-4)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_bootstrap_variance_is_the_analytic_one() -> None:
    """A mean over n clusters of equal size has variance s^2 / n, with s^2 the unbiased variance between clusters."""
    for n in (5, 12, 48):
        values = np.random.default_rng(n).random(n)
        means = resample(values[None], resamples=40_000)[0] / (n - 1)
        assert means.std() == pytest.approx(values.std(ddof=1) / math.sqrt(n), rel=0.02)
        assert means.mean() == pytest.approx(values.mean(), abs=0.01)


def test_chunks_of_the_bootstrap_do_not_change_its_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((1, 50))
    whole = resample(values)
    monkeypatch.setattr("verl_air.evaluation.statistics._CELLS", 50 * 300)
    chunked = resample(values)
    assert chunked.shape == whole.shape == (1, 2000)
    assert np.unique(chunked).size > 1900  # chunks draw anew: they do not repeat each other
    assert chunked.std() == pytest.approx(whole.std(), rel=0.1)


def test_the_same_data_give_the_same_interval() -> None:
    values = np.random.default_rng(0).random(30)
    assert ratio_of(values, np.ones(30)) == ratio_of(values, np.ones(30))


def test_prompts_of_one_intent_count_once() -> None:
    """Ten copies of each prompt are no new intents: the interval stays as wide as with one."""
    right = (np.arange(40) % 3 > 0).astype(float)
    once = ratio_of(right, np.ones(40))
    copied = ratio_of(right * 10, np.full(40, 10.0))
    assert copied.value == once.value
    assert copied.n == once.n == 40
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.1)


def test_no_interval_is_without_width() -> None:
    for share in (0.0, 0.75, 1.0):
        for found in (
            ratio_of(np.full(12, 4 * share), np.full(12, 4.0)),
            share_of(np.full(12, share)),
        ):
            assert found.value == share
            assert found.high - found.low > 0.2
    for change in (-1.0, 0.0, 1.0):
        found = difference_of(np.full(12, change))
        assert found.value == change
        assert found.high - found.low > 0.2
    assert share_of(np.ones(1)).low < 0.3


def test_nothing_is_nothing() -> None:
    for found in (share_of(np.empty(0)), ratio_of(np.empty(0), np.empty(0)), difference_of(np.empty(0))):
        assert (found.value, found.low, found.high, found.n) == (None, None, None, 0)
    unjudged = ratio_of(np.zeros(3), np.zeros(3))
    assert (unjudged.value, unjudged.n) == (None, 0)


@pytest.mark.parametrize(("runs", "quantile"), [(2, 12.7062), (3, 4.3027), (4, 3.1824), (5, 2.7764), (10, 2.2622)])
def test_intervals_over_seeds_have_the_quantiles_of_the_tables(runs: int, quantile: float) -> None:
    values = np.random.default_rng(runs).random(runs)
    found, error = mean_over_seeds(values.tolist()), values.std(ddof=1) / math.sqrt(runs)
    assert (found.high - found.value) / error == pytest.approx(quantile, abs=1e-4)
    assert (found.value - found.low) / error == pytest.approx(quantile, abs=1e-4)
    t = abs(values.mean()) / error
    assert paired_t(values.tolist()) == pytest.approx(2 * stats.t.sf(t, runs - 1))


def test_no_interval_over_seeds_is_made_up() -> None:
    assert mean_over_seeds([]).value is None
    assert mean_over_seeds([0.4]).low is None
    same = mean_over_seeds([0.5, 0.5, 0.5])
    assert (same.value, same.low, same.n) == (0.5, None, 3)
    assert paired_t([0.1, 0.1]) is None
    assert paired_t([0.1, -0.1]) == pytest.approx(1.0)
