"""Intervals cover at their nominal rate where prompts of an intent fail together; ignoring that does not."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from verl_air.evaluation.intervals import LEVEL, Estimate, difference_of, ratio_of, share_of, wilson

INTENTS, PROMPTS, RUNS = 48, 5, 500
SLACK = 3 * math.sqrt(LEVEL * (1 - LEVEL) / RUNS)  # three standard errors of the simulation itself: 0.029


def skills(rng: np.random.Generator) -> np.ndarray:
    """Chance of a right answer of each intent: Beta(1.4, 0.6), mean 0.7; most intents are nearly known or not."""
    return rng.beta(1.4, 0.6, size=INTENTS)


def coverage(sample: Callable[[np.random.Generator], Estimate], truth: float) -> float:
    rng = np.random.default_rng(7)
    found = [sample(rng) for _ in range(RUNS)]
    return float(np.mean([estimate.low <= truth <= estimate.high for estimate in found]))


def right_ZS(rng: np.random.Generator) -> np.ndarray:
    return (rng.random((INTENTS, PROMPTS)) < skills(rng)[:, None]).astype(float)


@pytest.mark.slow
def test_accuracy_by_the_bootstrap_over_intents() -> None:
    def sample(rng: np.random.Generator) -> Estimate:
        right = right_ZS(rng)
        return ratio_of(right.sum(axis=1), np.full(INTENTS, float(PROMPTS)), np.arange(INTENTS))

    assert coverage(sample, 0.7) == pytest.approx(LEVEL, abs=SLACK)


def test_prompts_taken_as_independent_cover_far_too_rarely() -> None:
    def sample(rng: np.random.Generator) -> Estimate:
        right = right_ZS(rng)
        return Estimate(0.0, *wilson(float(right.sum()), right.size), right.size, "wilson")

    assert coverage(sample, 0.7) < 0.85


def test_group_accuracy_by_wilson() -> None:
    """Without simulation: every count of right groups, weighted by its probability."""
    ends = [share_of((np.arange(INTENTS) < count).astype(float)) for count in range(INTENTS + 1)]
    covered = []
    for truth in np.linspace(0.05, 0.95, 181):
        chances = [math.comb(INTENTS, k) * truth**k * (1 - truth) ** (INTENTS - k) for k in range(INTENTS + 1)]
        covered.append(sum(p for p, end in zip(chances, ends, strict=True) if end.low <= truth <= end.high))
    assert np.mean(covered) == pytest.approx(LEVEL, abs=0.005)
    assert min(covered) > 0.91  # counts are whole numbers: coverage saws around the nominal rate


@pytest.mark.slow
def test_group_accuracy_of_several_completions() -> None:
    """E[p^5] of Beta(a, b) is the product of (a + i) / (a + b + i)."""
    truth = math.prod((1.4 + i) / (2.0 + i) for i in range(PROMPTS))

    def sample(rng: np.random.Generator) -> Estimate:
        shares = rng.binomial(4, np.repeat(skills(rng)[:, None], PROMPTS, axis=1)) / 4
        return share_of(shares.prod(axis=1))

    assert coverage(sample, truth) == pytest.approx(LEVEL, abs=SLACK)


@pytest.mark.slow
def test_paired_differences() -> None:
    """Two runs share their intents: A is right with p, B with 1 - (1 - p)^2."""
    mean_square = 1.4 * 2.4 / (2.0 * 3.0)
    truth = (2 * 0.7 - mean_square) - 0.7

    def sample(rng: np.random.Generator) -> Estimate:
        p = skills(rng)
        a, b = rng.random(INTENTS) < p, rng.random(INTENTS) < 1 - (1 - p) ** 2
        return difference_of(b.astype(float) - a)

    assert coverage(sample, truth) == pytest.approx(LEVEL, abs=SLACK)
