"""How far apart a model's hidden states lie for the prompts of one intent. Pure numpy; Z intents, S prompts, D width.

The paper reports that this dispersion falls (from 86.47 to 71.54) and leaves open what exactly it is. Here: the mean
Euclidean distance of a meta-group's hidden states from their centroid, averaged over meta-groups. Since a model whose
states all shrink would look better by that number alone, the same distances are also given relative to those of all
prompts from the centroid of all of them: 1 means that prompts of one intent are as far apart as any prompts, 0 that
they are the same to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verl_air.errors import DataError
from verl_air.evaluation.statistics import LEVEL, Estimate, resample


@dataclass(frozen=True)
class Dispersion:
    """absolute: mean distance from the centroid, by meta-group [Z]. overall: the same of all prompts, around one
    centroid. groups: names of the meta-groups [Z]; those with a single prompt have none and are left out.
    """

    absolute_Z: np.ndarray
    overall: float
    groups: tuple[str, ...]

    @property
    def relative_Z(self) -> np.ndarray:
        """Share of the overall distance; 0 where all prompts are alike."""
        return self.absolute_Z / self.overall if self.overall > 0 else np.zeros_like(self.absolute_Z)


def dispersion_of(hidden_SD: np.ndarray, group_S: Sequence[str]) -> Dispersion:
    """Dispersion of hidden states within meta-groups.

    Args:
        hidden_SD: one state a prompt.
        group_S: the meta-group of each prompt; any order.

    Raises:
        DataError: no meta-group has two prompts, or a state is not finite.
    """
    hidden_SD = np.asarray(hidden_SD, dtype=np.float64)
    if not np.isfinite(hidden_SD).all():
        raise DataError("a hidden state is not finite; try --dtype float32")
    names, of_S = np.unique(np.asarray(group_S, dtype=object).astype(str), return_inverse=True)
    size_Z = np.bincount(of_S, minlength=len(names))
    centroid_ZD = np.zeros((len(names), hidden_SD.shape[1]))
    np.add.at(centroid_ZD, of_S, hidden_SD)
    centroid_ZD /= size_Z[:, None]
    distance_S = np.linalg.norm(hidden_SD - centroid_ZD[of_S], axis=1)
    absolute_Z = np.bincount(of_S, weights=distance_S, minlength=len(names)) / size_Z
    several_Z = size_Z > 1
    if not several_Z.any():
        raise DataError("no meta-group has two prompts: there is nothing to be apart")
    overall = float(np.linalg.norm(hidden_SD - hidden_SD.mean(axis=0), axis=1).mean())
    return Dispersion(absolute_Z[several_Z], overall, tuple(str(name) for name in names[several_Z]))


def mean_with_interval(values_Z: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean over meta-groups, by a bootstrap over them; without an interval where there are fewer than two."""
    n = len(values_Z)
    value = float(values_Z.mean())
    if n < 2:
        return Estimate(value, None, None, n, "none")
    means_B = resample(np.asarray(values_Z, dtype=float)[None])[0] / (n - 1)
    low, high = np.quantile(means_B, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(low), float(high), n, "bootstrap")


def paired_difference(a: Dispersion, b: Dispersion, relative: bool, level: float = LEVEL) -> Estimate:
    """b - a over the same meta-groups.

    Raises:
        DataError: they are of other meta-groups.
    """
    if a.groups != b.groups:
        raise DataError("the two dispersions are of other meta-groups: measure both models on the same files")
    difference_Z = b.relative_Z - a.relative_Z if relative else b.absolute_Z - a.absolute_Z
    return mean_with_interval(difference_Z, level)
