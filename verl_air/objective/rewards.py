"""Bringing rewards of different scale to one scale before a gap is formed (``air.reward_scale: unit``)."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_scale(reward_N: Tensor, min_N: Tensor, max_N: Tensor) -> Tensor:
    """Map each reward linearly so that its function's minimum becomes -1 and its maximum +1: [N] -> [N], float64.

    An open variant that can earn 3.75 and an anchor that can earn at most 2.50 otherwise show a gap where both are
    perfect (spec: the constructiveness tier).

    Raises:
        ValueError: some maximum is not above its minimum.
    """
    min_N, max_N = min_N.to(torch.float64), max_N.to(torch.float64)
    if bool((max_N <= min_N).any()):
        raise ValueError("each reward function's maximum must be above its minimum")
    return 2.0 * (reward_N.to(torch.float64) - min_N) / (max_N - min_N) - 1.0
