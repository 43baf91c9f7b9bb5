"""Weights and log-probs -> the auxiliary loss J_aux."""

from __future__ import annotations

import torch
from torch import Tensor


def surrogate_loss(
    log_prob_NT: Tensor,
    weight: Tensor,
    response_mask_NT: Tensor,
    *,
    num_trajectories: float,
    old_log_prob_NT: Tensor | None = None,
    max_ratio: float = 2.0,
) -> Tensor:
    """``-(1 / num_trajectories) * sum_i weight_i * sum_t log pi_it``, in float32.

    It is a plain sum over rows, so parts of a batch add up to the whole whatever the split.

    Args:
        log_prob_NT: log-probs of the response tokens under the policy being trained, padded; carries the gradient.
        weight: from ``trajectory_weights``, [N], or repeated over tokens, [N, T]; detached.
        response_mask_NT: 1 on response tokens; masked positions may hold anything finite.
        num_trajectories: the trajectories to average over, of the whole mini-batch and not of this part of it.
        old_log_prob_NT: if given, each token is reweighted by the detached ratio pi / pi_old, clipped at ``max_ratio``:
            truncated importance sampling, for updates that are off-policy. The paper has none.
        max_ratio: the clip.

    Returns:
        A scalar with gradient.
    """
    weight = weight.detach().to(torch.float32)
    weight_NT = (weight.unsqueeze(-1) if weight.dim() == 1 else weight) * response_mask_NT.to(torch.float32)
    log_prob_NT = log_prob_NT.to(torch.float32)
    if old_log_prob_NT is not None:
        ratio_NT = (log_prob_NT.detach() - old_log_prob_NT.detach().to(torch.float32)).exp()
        weight_NT = weight_NT * ratio_NT.clamp(max=max_ratio)
    return -(weight_NT * log_prob_NT).sum() / num_trajectories
