"""Student's t distribution for whole degrees of freedom, by its closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4).

A handful of seeds needs t, not the normal: with three, 95 % lie within 4.3 standard errors.
"""

from __future__ import annotations

import math
from functools import lru_cache


def central_probability(t: float, freedom: int) -> float:
    """P(-t < T < t) for ``t >= 0`` and ``freedom >= 1``."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    term = cosine if freedom % 2 else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if freedom % 2 else 2, freedom - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return 2 / math.pi * (angle + sine * total) if freedom % 2 else sine * total


@lru_cache(maxsize=256)
def two_sided_quantile(level: float, freedom: int) -> float:
    """The t with P(-t < T < t) = level, by bisection."""
    low, high = 0.0, 1.0
    while central_probability(high, freedom) < level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if central_probability(middle, freedom) < level else (low, middle)
    return (low + high) / 2
