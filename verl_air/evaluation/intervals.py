"""Confidence intervals that respect meta-groups. Axis: Z clusters (intents), B bootstrap resamples.

Prompts of one intent are right or wrong together, so the intent is the unit that was sampled: treating its prompts as
independent makes intervals far too narrow (``tests/evaluation/test_coverage.py`` shows by how much).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
_SEED = 20260
_CELLS = 4_000_000  # of a resampling matrix that is in memory at a time

Method = Literal["wilson", "bootstrap", "t", "none"]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; all None where there is nothing to estimate.

    n: clusters (intents, or runs) it rests on.
    method: ``wilson`` (every cluster is one success or failure), ``bootstrap`` over clusters, Student's ``t`` over runs
        (``verl_air.evaluation.seeds``), or ``none``.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: Method


NOTHING = Estimate(None, None, None, 0, "none")


def wilson(successes: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Args:
        successes: between 0 and n; a fraction is allowed.
        n: trials, at least 1.
        level: nominal coverage.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, z2n = successes / n, z * z / n
    centre = (share + z2n / 2) / (1 + z2n)
    half = z / (1 + z2n) * math.sqrt(share * (1 - share) / n + z2n / (4 * n))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def share_of(values_Z: np.ndarray, cluster_Z: np.ndarray | None = None, level: float = LEVEL) -> Estimate:
    """Mean of numbers in [0, 1], one a meta-group.

    Args:
        values_Z: of each meta-group.
        cluster_Z: integer id of its intent; None if each meta-group is an intent of its own.
        level: nominal coverage.
    """
    n = len(values_Z)
    clusters = np.arange(n) if cluster_Z is None else cluster_Z
    return ratio_of(values_Z, np.ones(n), clusters, level)


def ratio_of(sum_R: np.ndarray, count_R: np.ndarray, cluster_R: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean of numbers in [0, 1] that come in clusters: sum / count, resampled by cluster.

    Where every cluster is one trial Wilson is used; also where no cluster differs from another, since the bootstrap
    would then have no width.

    Args:
        sum_R, count_R: sum and number of the values of each row.
        cluster_R: integer id of the row's cluster.
        level: nominal coverage.
    """
    ids_Z, of_row = np.unique(cluster_R, return_inverse=True)
    sum_Z = np.bincount(of_row, weights=sum_R, minlength=len(ids_Z))
    count_Z = np.bincount(of_row, weights=count_R, minlength=len(ids_Z))
    sum_Z, count_Z = sum_Z[count_Z > 0], count_Z[count_Z > 0]
    n = len(count_Z)
    if n == 0:
        return NOTHING
    value = float(sum_Z.sum() / count_Z.sum())
    if np.ptp(sum_Z / count_Z) < 1e-12 or ((count_Z == 1).all() and np.isin(sum_Z, (0.0, 1.0)).all()):
        return Estimate(value, *wilson(value * n, n, level), n, "wilson")
    resampled_BZ = resample(np.stack([sum_Z, count_Z]))
    low, high = np.quantile(resampled_BZ[0] / resampled_BZ[1], [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(low), float(high), n, "bootstrap")


def difference_of(values_Z: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean of paired differences in [-1, 1], one an intent, by a bootstrap over intents.

    Where all differences are alike it has no width; the difference that Wilson allows an unseen intent stands in.
    """
    n = len(values_Z)
    if n == 0:
        return NOTHING
    value = float(values_Z.mean())
    if np.ptp(values_Z) < 1e-12:
        slack = wilson(0.0, n, level)[1]
        return Estimate(value, max(-1.0, value - slack), min(1.0, value + slack), n, "wilson")
    means_B = resample(values_Z[None])[0] / (n - 1)
    low, high = np.quantile(means_B, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(low), float(high), n, "bootstrap")


def resample(columns_CZ: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Sums of columns over clusters drawn with replacement: [C, B]. The same data give the same numbers.

    One cluster fewer is drawn than there are: a mean over them then has the variance s^2 / n, not (n - 1) / n of it
    (Rao and Wu, 1988), which matters at a few dozen intents.
    """
    clusters = columns_CZ.shape[1]
    rng = np.random.default_rng(_SEED)
    chunk = max(1, _CELLS // clusters)
    sums = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn_BZ = rng.multinomial(clusters - 1, np.full(clusters, 1 / clusters), size=rows)
        sums.append(columns_CZ @ drawn_BZ.T)
    return np.concatenate(sums, axis=1)
