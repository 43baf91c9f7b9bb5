"""Group accuracy: a meta-group is right only if all its prompts are. Axes: Z meta-groups, S prompts, N completions.

With several completions of a prompt, "all prompts are right" is read as: draw one completion of each prompt, are all of
them right? Completions are independent given the policy, so the product over prompts of the share that is right is an
unbiased estimate of that probability, and does not shrink as more completions are drawn. With one completion of each
prompt it is 0 or 1: the paper's group accuracy.

A meta-group without a verdict for each of its completions is incomplete: it counts, and is not right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroupAccuracy:
    """Of each meta-group, in ascending order of its id.

    group_Z: the ids.
    all_right_Z: probability that one completion of each prompt are all right; float64 in [0, 1].
    all_wrong_Z: the same for all wrong; with ``all_right_Z`` it adds up to consistency.
    incomplete_Z: a completion is missing or has no verdict; ``all_right_Z`` and ``all_wrong_Z`` are 0 there.
    """

    group_Z: np.ndarray
    all_right_Z: np.ndarray
    all_wrong_Z: np.ndarray
    incomplete_Z: np.ndarray


def group_accuracy(
    acc_N: np.ndarray, prompt_N: np.ndarray, group_N: np.ndarray, size_N: np.ndarray | None = None
) -> GroupAccuracy:
    """Judge the prompts of each meta-group together.

    Args:
        acc_N: verdict of each completion, 1.0 right; NaN without a verdict.
        prompt_N, group_N: ids, arbitrary and in any order; a prompt belongs to one group.
        size_N: completions that the meta-group of each completion should have, over all its prompts; 0 where that is
            not known. None: what is there is all there is.
    """
    groups, group_N = np.unique(group_N, return_inverse=True)
    prompts, first, prompt_N = np.unique(prompt_N, return_index=True, return_inverse=True)
    judged_Z = np.bincount(group_N, weights=np.isfinite(acc_N), minlength=len(groups))
    size_Z = np.bincount(group_N, minlength=len(groups))
    if size_N is not None:
        np.maximum.at(size_Z, group_N, size_N)
    complete_Z = judged_Z == size_Z
    right_S = np.bincount(prompt_N, weights=np.nan_to_num(acc_N) >= 1.0, minlength=len(prompts))
    share_S = right_S / np.maximum(np.bincount(prompt_N, minlength=len(prompts)), 1)
    all_right_Z, all_wrong_Z = complete_Z.astype(float), complete_Z.astype(float)
    np.multiply.at(all_right_Z, group_N[first], share_S)
    np.multiply.at(all_wrong_Z, group_N[first], 1.0 - share_S)
    return GroupAccuracy(groups, all_right_Z, all_wrong_Z, ~complete_Z)
