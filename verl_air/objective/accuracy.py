"""Group accuracy: a meta-group is right only if all its prompts are. Axes: Z meta-groups, S prompts, N completions.

With several completions of a prompt, "all prompts are right" is read as: draw one completion of each prompt, are all of
them right? Completions are independent given the policy, so the product over prompts of the share that is right is an
unbiased estimate of that probability, and does not shrink as more completions are drawn. With one completion of each
prompt it is 0 or 1: the paper's group accuracy.
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
    whole_Z: every completion has a verdict; only such a group has a group accuracy.
    """

    group_Z: np.ndarray
    all_right_Z: np.ndarray
    all_wrong_Z: np.ndarray
    whole_Z: np.ndarray


def group_accuracy(acc_N: np.ndarray, prompt_N: np.ndarray, group_N: np.ndarray) -> GroupAccuracy:
    """Judge the prompts of each meta-group together.

    Args:
        acc_N: verdict of each completion, 1.0 right; NaN without a verdict.
        prompt_N, group_N: ids, arbitrary and in any order; a prompt belongs to one group.
    """
    groups, group_N = np.unique(group_N, return_inverse=True)
    prompts, first, prompt_N = np.unique(prompt_N, return_index=True, return_inverse=True)
    judged_N, group_S = np.isfinite(acc_N), group_N[first]
    right_S = np.bincount(prompt_N, weights=np.nan_to_num(acc_N) >= 1.0, minlength=len(prompts))
    share_S = right_S / np.maximum(np.bincount(prompt_N, minlength=len(prompts)), 1)
    all_right_Z, all_wrong_Z = np.ones(len(groups)), np.ones(len(groups))
    np.multiply.at(all_right_Z, group_S, share_S)
    np.multiply.at(all_wrong_Z, group_S, 1.0 - share_S)
    return GroupAccuracy(groups, all_right_Z, all_wrong_Z, np.bincount(group_N, weights=~judged_N) == 0)
