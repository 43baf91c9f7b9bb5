"""Which trajectory belongs to which prompt and meta-group, and the reward statistics of each.

Axes: Z meta-groups, S prompts, N trajectories. Ids are arbitrary integers in any order; nothing relies on position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MetaGroups:
    """Reward statistics of a batch, by trajectory, prompt and meta-group. All means are float64.

    Attributes:
        reward_N: rewards; 0 where invalid.
        valid_N: rows that take part.
        prompt_N, group_N: compact indices, 0..S-1 and 0..Z-1, of each trajectory.
        is_anchor_N: anchor rows.
        right_N: verdicts, False where invalid; None if none were given.
        count_S: valid completions of a prompt, K_s.
        mean_S, var_S: mean and unbiased variance of a prompt's valid rewards; 0 where undefined.
        group_S: meta-group of a prompt.
        contexts_Z: prompts of a meta-group with at least one valid completion, |C|.
        anchor_mean_Z: mean over its anchors of ``mean_S``, the paper's rbar_acr; 0 where it has none.
        open_mean_Z: the same over its open prompts.
        anchor_var_Z: squared standard error of ``anchor_mean_Z``.
        complete_Z: the meta-group has a valid anchor and a valid open prompt.
    """

    reward_N: Tensor
    valid_N: Tensor
    prompt_N: Tensor
    group_N: Tensor
    is_anchor_N: Tensor
    right_N: Tensor | None
    count_S: Tensor
    mean_S: Tensor
    var_S: Tensor
    group_S: Tensor
    contexts_Z: Tensor
    anchor_mean_Z: Tensor
    open_mean_Z: Tensor
    anchor_var_Z: Tensor
    complete_Z: Tensor

    @property
    def gap_Z(self) -> Tensor:
        """Anchor minus open mean reward, all prompts weighted alike: float64, one per complete meta-group."""
        return (self.anchor_mean_Z - self.open_mean_Z)[self.complete_Z]

    @property
    def active_N(self) -> Tensor:
        """Valid rows of complete meta-groups: the only ones whose weight may differ from zero."""
        return self.valid_N & self.complete_Z[self.group_N]

    def sum_by_group(self, value_S: Tensor, mask_S: Tensor) -> Tensor:
        """Sum a value of prompts over the prompts of each meta-group where the mask holds: [S] -> [Z]."""
        return _sum_by(value_S * mask_S, self.group_S, len(self.contexts_Z))

    def own_mean_N(self, estimator: str, value_N: Tensor | None = None) -> Tensor:
        """Mean reward of a trajectory's own prompt as the estimator sees it; or of a value that is 0 where invalid.

        ``paper``: the mean over all K completions, which holds the trajectory's own reward and so biases
        ``gap * reward``. ``loo``: the mean over the other K - 1, which makes it unbiased.
        For K = 1 ``loo`` is undefined; see :meth:`defined_N`.
        """
        value_N = self.reward_N if value_N is None else value_N
        count_N = self.count_S[self.prompt_N]
        mean_N = _sum_by(value_N, self.prompt_N, len(self.count_S))[self.prompt_N] / count_N.clamp(min=1)
        if estimator == "paper":
            return mean_N
        return (count_N * mean_N - value_N) / (count_N - 1).clamp(min=1)

    def product_of_others(self, right_N: Tensor, taken_N: Tensor, prior: float) -> Tensor:
        """Product of the accuracies of a prompt's meta-group, its own left out: float64 [S].

        Args:
            right_N: verdicts as numbers, 0 where invalid.
            taken_N: rows of the prompts that count; the others are no factors.
            prior: that many more completions of each prompt, half of them right; see ``GapOptions.accuracy_prior``.

        Returns:
            0 where a prompt that counts has no valid completion.
        """
        taken_S = _sum_by(taken_N, self.prompt_N, len(self.count_S)) > 0
        right_S = _sum_by(right_N, self.prompt_N, len(self.count_S))
        accuracy_S = (right_S + 0.5 * prior) / (self.count_S + prior).clamp(min=1)
        accuracy_S = torch.where(taken_S, accuracy_S * (self.count_S > 0), 1.0)
        zero_S = accuracy_S == 0
        zeros_Z = _sum_by(zero_S, self.group_S, len(self.contexts_Z))
        product_Z = torch.ones_like(self.contexts_Z)
        product_Z.scatter_reduce_(0, self.group_S, torch.where(zero_S, 1.0, accuracy_S), "prod")
        # Without dividing by zero: the product of the factors that are not zero, where no other factor is.
        other_S = torch.where(zero_S, product_Z[self.group_S], product_Z[self.group_S] / accuracy_S)
        return torch.where(zeros_Z[self.group_S] - zero_S.to(torch.float64) > 0, 0.0, other_S)

    def defined_N(self, estimator: str) -> Tensor:
        """Where :meth:`own_mean_N` is defined: everywhere for ``paper``, where K > 1 for ``loo``."""
        return self.count_S[self.prompt_N] > (0 if estimator == "paper" else 1)


def group_trajectories(
    reward_N: Tensor,
    prompt_N: Tensor,
    group_N: Tensor,
    is_anchor_N: Tensor,
    valid_N: Tensor | None = None,
    right_N: Tensor | None = None,
) -> MetaGroups:
    """Gather a batch into meta-groups.

    Args:
        reward_N: raw rewards, any float dtype; may be anything, NaN too, on invalid rows.
        prompt_N, group_N: integer ids, arbitrary and in any order.
        is_anchor_N: bool, the same for all rows of a prompt.
        valid_N: bool; False for abstained and padded rows. None: all valid.
        right_N: bool, verdicts; anything on invalid rows. None: there are none.

    Raises:
        ValueError: shapes differ, a valid reward is not finite, verdicts are not bool, or a prompt id belongs to
            several intents or roles.
    """
    valid_N = torch.ones_like(is_anchor_N, dtype=torch.bool) if valid_N is None else valid_N.bool()
    is_anchor_N = is_anchor_N.bool()
    given = (reward_N, prompt_N, group_N, is_anchor_N, valid_N, *([] if right_N is None else [right_N]))
    shapes = {tuple(t.shape) for t in given}
    if len(shapes) != 1 or reward_N.dim() != 1:
        raise ValueError(f"all arguments must have one shape [N], got {sorted(shapes)}")
    if right_N is not None and right_N.dtype != torch.bool:  # a NaN, "no verdict", would count as right
        raise ValueError(f"right_N must be bool, got {right_N.dtype}; mark rows without a verdict invalid")
    reward_N = torch.where(valid_N, reward_N.detach().to(torch.float64), 0.0)
    if not torch.isfinite(reward_N).all():
        bad = int((~torch.isfinite(reward_N)).sum())
        raise ValueError(f"{bad} of {len(reward_N)} valid rewards are NaN or infinite; mark such rows invalid")

    prompts, prompt_N = torch.unique(prompt_N, return_inverse=True)
    groups, group_N = torch.unique(group_N, return_inverse=True)
    S, Z = len(prompts), len(groups)
    group_S = _own_of(group_N, prompt_N, S, "intent")
    is_anchor_S = _own_of(is_anchor_N, prompt_N, S, "role")

    count_S = _sum_by(valid_N, prompt_N, S)
    mean_S = _sum_by(reward_N, prompt_N, S) / count_S.clamp(min=1)
    residual_N = torch.where(valid_N, reward_N - mean_S[prompt_N], 0.0)
    var_S = _sum_by(residual_N.square(), prompt_N, S) / (count_S - 1).clamp(min=1)

    anchor_S, open_S = (count_S > 0) & is_anchor_S, (count_S > 0) & ~is_anchor_S
    anchors_Z, open_Z = _sum_by(anchor_S, group_S, Z), _sum_by(open_S, group_S, Z)
    return MetaGroups(
        reward_N=reward_N,
        valid_N=valid_N,
        prompt_N=prompt_N,
        group_N=group_N,
        is_anchor_N=is_anchor_N,
        right_N=None if right_N is None else right_N & valid_N,
        count_S=count_S,
        mean_S=mean_S,
        var_S=var_S,
        group_S=group_S,
        contexts_Z=anchors_Z + open_Z,
        anchor_mean_Z=_sum_by(mean_S * anchor_S, group_S, Z) / anchors_Z.clamp(min=1),
        open_mean_Z=_sum_by(mean_S * open_S, group_S, Z) / open_Z.clamp(min=1),
        anchor_var_Z=_sum_by(var_S / count_S.clamp(min=1) * anchor_S, group_S, Z) / anchors_Z.clamp(min=1).square(),
        complete_Z=(anchors_Z > 0) & (open_Z > 0),
    )


def _sum_by(value: Tensor, index: Tensor, size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.float64, device=value.device).index_add_(0, index, value.to(torch.float64))


def _own_of(value_N: Tensor, index_N: Tensor, size: int, what: str) -> Tensor:
    """The one value that all rows of an index share: [N] -> [size]."""
    own = torch.zeros(size, dtype=value_N.dtype, device=value_N.device).index_copy_(0, index_N, value_N)
    if not torch.equal(own[index_N], value_N):
        raise ValueError(
            f"one prompt id has rows of more than one {what}: prompt ids must be unique over intents and roles"
        )
    return own
