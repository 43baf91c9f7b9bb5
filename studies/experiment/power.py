"""What difference a comparison over seeds can see, from what two equal methods differ by."""

from __future__ import annotations

import math

from scipy import stats


def power_of(spread: float, seeds: int) -> str:
    """What a comparison can see, in a sentence.

    Args:
        spread: standard deviation over seeds of the paired difference between two equal methods.
        seeds: how many there are.
    """
    seen = detectable_difference(spread, seeds)
    return (
        f"paired differences of equal methods have a standard deviation of {100 * spread:.1f} points, so {seeds} seeds "
        f"detect a difference from {100 * seen:.1f} points (80 % power, 5 % level)."
    )


def detectable_difference(spread: float, seeds: int, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest true difference that a paired t-test over seeds finds with this power, nearly: by central t.

    Args:
        spread: standard deviation over seeds of a paired difference without cause, as of an A/A arm.
        seeds: at least two.
        power: probability of finding it.
        level: one minus the probability of finding one where there is none.
    """
    chance, found = stats.t.ppf([0.5 + level / 2, power], seeds - 1)
    return float((chance + found) * spread / math.sqrt(seeds))
