"""Confidence intervals and tests. Axis: Z clusters (intents), R runs, B bootstrap resamples.

Prompts of one intent are right or wrong together, so the sampled unit is the intent: taking its prompts as independent
makes intervals far too narrow. Between methods the unit is the training run: each run's number includes the noise of
its own intents and completions, so nothing is resampled within a run. ``tests/evaluation`` simulates the coverage of
all of them, and that of the bootstraps over a few seeds that are too narrow.

scipy is imported where it is needed, since that takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Literal

import numpy as np

LEVEL = 0.95
"""Coverage of every interval."""
RESAMPLES = 2000
_SEED = 20260
_CELLS = 4_000_000  # of a resampling matrix that is in memory at a time


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; all None where there is nothing to estimate.

    n: clusters (intents, or runs) that it is based on.
    method: ``wilson`` (every cluster is one success or failure), ``bootstrap`` over clusters, Student's ``t`` over
        runs, or ``none``.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    method: Literal["wilson", "bootstrap", "t", "none"] = "none"


NOTHING = Estimate(None)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share of ``n`` trials.

    Not scipy's ``binomtest(...).proportion_ci``: with several completions per prompt, ``successes`` is a fraction.
    """
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    share, z2n = successes / n, z * z / n
    centre = (share + z2n / 2) / (1 + z2n)
    half = z / (1 + z2n) * math.sqrt(share * (1 - share) / n + z2n / (4 * n))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def share_of(values_Z: np.ndarray, interval: bool = True) -> Estimate:
    """Mean of numbers in [0, 1], one per intent; see :func:`ratio_of`."""
    return ratio_of(values_Z, np.ones(len(values_Z)), interval)


def ratio_of(sum_Z: np.ndarray, count_Z: np.ndarray, interval: bool = True) -> Estimate:
    """Mean of numbers in [0, 1] of which each intent has several: sum / count, resampled by intent.

    Wilson is used where every intent is one trial, and where no intent differs from another, since the bootstrap would
    then have no width. ``interval``: False for the value alone, which is far faster.
    """
    sum_Z, count_Z = sum_Z[count_Z > 0], count_Z[count_Z > 0]
    if not (n := len(count_Z)):
        return NOTHING
    value = float(sum_Z.sum() / count_Z.sum())
    if not interval:
        return Estimate(value, n=n)
    if np.ptp(sum_Z / count_Z) < 1e-12 or ((count_Z == 1).all() and np.isin(sum_Z, (0.0, 1.0)).all()):
        return Estimate(value, *wilson(value * n, n), n, "wilson")
    sum_B, count_B = resample(np.stack([sum_Z, count_Z]))
    return Estimate(value, *_percentiles(sum_B / count_B), n, "bootstrap")


def difference_of(values_Z: np.ndarray) -> Estimate:
    """Mean of paired differences in [-1, 1], one per intent, by a bootstrap over intents.

    Where all differences are equal that has no width; the difference that Wilson allows an unseen intent is used.
    """
    if not (n := len(values_Z)):
        return NOTHING
    value = float(values_Z.mean())
    if np.ptp(values_Z) < 1e-12:
        slack = wilson(0.0, n)[1]
        return Estimate(value, max(-1.0, value - slack), min(1.0, value + slack), n, "wilson")
    return Estimate(value, *_percentiles(resample(values_Z[None])[0] / (n - 1)), n, "bootstrap")


def resample(columns_CZ: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Sums of columns over clusters drawn with replacement: [C, B]. The same data give the same numbers.

    One cluster fewer is drawn than there are (Rao and Wu, 1988): a mean over them then has the variance s^2 / n, not
    (n - 1) / n of it, which matters at a few dozen intents. ``scipy.stats.bootstrap`` draws all n and cannot do this.
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


def mean_over_seeds(values_R: Sequence[float]) -> Estimate:
    """Mean and t interval of one number per run.

    Without an interval for a single run, and where all runs agree exactly: their spread cannot be estimated then.
    """
    n = len(values_R)
    if n == 0:
        return NOTHING
    mean = fmean(values_R)
    if not _spread(values_R):
        return Estimate(mean, n=n)
    from scipy import stats

    low, high = stats.t.interval(LEVEL, n - 1, loc=mean, scale=stats.sem(values_R))
    return Estimate(mean, float(low), float(high), n, "t")


def paired_t(differences_R: Sequence[float]) -> float | None:
    """Two-sided p of no mean difference; None with fewer than two runs, or if all differences are equal."""
    if not _spread(differences_R):
        return None
    from scipy import stats

    return float(stats.ttest_1samp(differences_R, 0.0).pvalue)


def paired_p(differences_Z: np.ndarray) -> float:
    """Two-sided p of no mean difference between paired intents.

    McNemar's exact test where all are -1, 0 or 1 (one completion per prompt). Else its generalisation, the sign-flip
    test: exact up to 14 differences that are not 0, 20,000 random draws above.
    """
    from scipy import stats

    differences_Z = differences_Z[differences_Z != 0]
    if len(differences_Z) < 2:  # none, or one of either sign
        return 1.0
    if (np.abs(differences_Z) == 1).all():
        return float(stats.binomtest(int((differences_Z > 0).sum()), len(differences_Z)).pvalue)
    flips = {"permutation_type": "samples", "n_resamples": 20_000, "batch": 1000, "random_state": _SEED}
    return float(stats.permutation_test((differences_Z,), np.sum, **flips).pvalue)


def _spread(values_R: Sequence[float]) -> bool:
    return len(values_R) > 1 and max(values_R) - min(values_R) >= 1e-12


def _percentiles(values_B: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values_B, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)
