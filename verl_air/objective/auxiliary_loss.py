"""The auxiliary loss J_aux in two halves: weights from rewards, once per step; the loss from weights and log-probs."""

from __future__ import annotations

import torch
from torch import Tensor

from verl_air.config import GapOptions
from verl_air.objective.meta_group import group_trajectories
from verl_air.objective.regularizers import get_regularizer


def unit_scale(reward_N: Tensor, min_N: Tensor, max_N: Tensor) -> Tensor:
    """Map each reward linearly so that its function's minimum becomes -1 and its maximum +1: [N] -> [N], float64.

    An open variant that can earn 3.75 and an anchor that can earn at most 2.50 otherwise show a gap where both are
    perfect (``air.reward_scale: unit``).

    Raises:
        ValueError: some maximum is not above its minimum.
    """
    min_N, max_N = min_N.to(torch.float64), max_N.to(torch.float64)
    if bool((max_N <= min_N).any()):
        raise ValueError("each reward function's maximum must be above its minimum")
    return 2.0 * (reward_N.to(torch.float64) - min_N) / (max_N - min_N) - 1.0


def trajectory_weights(
    reward_N: Tensor,
    prompt_N: Tensor,
    intent_N: Tensor,
    is_anchor_N: Tensor,
    valid_N: Tensor | None = None,
    *,
    right_N: Tensor | None = None,
    regularizer: str = "air",
    estimator: str = "loo",
    gap: str = "signed",
    shrinkage: float = 0.0,
    accuracy_prior: float = 0.0,
) -> Tensor:
    """One weight per trajectory, computed once on the whole batch.

    It depends on no micro-batch, mini-batch or data-parallel split, and on no order of the rows.

    Args:
        reward_N: float [N], raw rewards (not advantages).
        prompt_N: integer ids [N], arbitrary, in any order.
        intent_N: integer ids [N] of the groups within which gaps are formed. An id per intent does where an intent is
            sampled once per batch; training passes an id per meta-group, so that two visits to an intent stay apart.
        is_anchor_N: bool [N].
        valid_N: bool [N]; False for abstained and padded rows, whose rewards may be NaN. None: all valid.
        right_N: bool [N], verdicts; anything on invalid rows. Needed by ``group_accuracy``, which ignores rewards.
        regularizer: a registered name.
        estimator, gap, shrinkage, accuracy_prior: see :class:`~verl_air.config.GapOptions`. The default gap is the
            paper's; training has another one.

    Returns:
        float32 [N], detached. Zero for anchors (``air``), for invalid rows, and for groups that lack a valid anchor or
        a valid open row; with ``loo`` also for prompts with a single valid completion, where it is undefined.

    Raises:
        ValueError: see :func:`group_trajectories`; or the regularizer needs ``right_N``.
        ConfigError: the regularizer is not registered, or an option has no such value.
    """
    options = GapOptions.from_mapping(
        {"estimator": estimator, "gap": gap, "gap_shrinkage": shrinkage, "accuracy_prior": accuracy_prior}
    )
    groups = group_trajectories(reward_N, prompt_N, intent_N, is_anchor_N, valid_N, right_N)
    weight_N = get_regularizer(regularizer)(groups, options)
    return torch.where(groups.active_N, weight_N, 0.0).to(torch.float32)


def importance_ratio(
    log_prob_NT: Tensor,
    old_log_prob_NT: Tensor,
    rollout_weight_NT: Tensor | None = None,
    *,
    max_ratio: float = 2.0,
) -> Tensor:
    """What each token's weight is multiplied by, so that samples of an older policy stand for the one being trained.

    Detached, float32 [N, T]: ``min(pi / pi_old, max_ratio)``, times the weight by which verl corrects pi_old / rollout.
    It is exact for whole responses only as a product over them that nothing truncates (docs/estimators.md).

    Args:
        log_prob_NT: log-probs under the policy being trained.
        old_log_prob_NT: under the policy that the update started from, or under the rollout's (verl's bypass mode).
        rollout_weight_NT: verl's ``rollout_is_weights``, for rollouts of a still older policy. None: there are none.
        max_ratio: the upper clip of pi / pi_old.
    """
    ratio_NT = (log_prob_NT.detach().float() - old_log_prob_NT.detach().float()).exp().clamp(max=max_ratio)
    return ratio_NT if rollout_weight_NT is None else ratio_NT * rollout_weight_NT.detach().float()


def consistency_weight(log_prob: Tensor, plain_log_prob: Tensor) -> Tensor:
    """A token's weight for on-policy consistency training (arXiv 2605.21834): ``sg[log pi_0(plain) - log pi]``.

    The credit is immediate. With :func:`surrogate_loss` the expected gradient is that of
    ``sum_t KL(pi(. | open, y_<t) || pi_0(. | plain, y_<t))`` at the prefixes that were sampled: how a token changes
    what is said after it is left out, unlike in the KL of whole responses, whose weights would be returns-to-go.

    Args:
        log_prob: of response tokens, given an open variant, under the policy that sampled them; any shape.
        plain_log_prob: of the same tokens, given the plain request, under the frozen initial policy.
    """
    return (plain_log_prob - log_prob).detach()


def surrogate_loss(
    log_prob_NT: Tensor,
    weight: Tensor,
    response_mask_NT: Tensor,
    *,
    num_trajectories: float,
    ratio_NT: Tensor | None = None,
) -> Tensor:
    """``-(1 / num_trajectories) * sum_i weight_i * sum_t ratio_it * log pi_it``, in float32: a scalar with gradient.

    It is a plain sum over rows, so parts of a batch add up to the whole whatever the split.

    Args:
        log_prob_NT: log-probs of the response tokens under the policy being trained, padded; carries the gradient.
        weight: from ``trajectory_weights``, [N], or repeated over tokens, [N, T]; detached.
        response_mask_NT: 1 on response tokens; masked positions may hold anything finite.
        num_trajectories: the trajectories to average over, of the whole mini-batch, of which this may be a part.
        ratio_NT: from :func:`importance_ratio`, for updates that are off-policy. None, as in the paper: 1.
    """
    weight = weight.detach().to(torch.float32)
    weight_NT = (weight.unsqueeze(-1) if weight.dim() == 1 else weight) * response_mask_NT.to(torch.float32)
    if ratio_NT is not None:
        weight_NT = weight_NT * ratio_NT
    return -(weight_NT * log_prob_NT.to(torch.float32)).sum() / num_trajectories
