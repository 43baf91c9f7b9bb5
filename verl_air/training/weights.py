"""From a batch's trajectories to the weights that the actor's loss will use: computed once a step, on the driver."""

from __future__ import annotations

import numpy as np
import torch

from verl_air.config import AirConfig
from verl_air.objective import trajectory_weights, unit_scale
from verl_air.training.trajectories import Trajectories, require_info


def auxiliary_reward(trajectories: Trajectories, air: AirConfig) -> np.ndarray:
    """The reward that gap and weight are formed from: float64 [N] (``air.aux_reward``, ``air.reward_scale``).

    Raises:
        RewardError: the reward function did not return what the options need.
    """
    prefix = "task" if air.aux_reward == "task" else "score"
    reward_N = trajectories.reward_N
    if air.aux_reward == "task":
        reward_N = require_info(trajectories, "task_reward", "air.aux_reward=task")
    if air.reward_scale == "unit":
        min_N = require_info(trajectories, f"{prefix}_min", "air.reward_scale=unit")
        max_N = require_info(trajectories, f"{prefix}_max", "air.reward_scale=unit")
        known = np.isfinite(min_N) & np.isfinite(max_N)
        scaled = unit_scale(*(torch.from_numpy(values_N[known]) for values_N in (reward_N, min_N, max_N)))
        reward_N = reward_N.copy()
        reward_N[known] = scaled.numpy()
    return reward_N


def loss_weights(trajectories: Trajectories, valid_N: np.ndarray, air: AirConfig) -> np.ndarray:
    """The trajectory weights, scaled for the loss: float32 [N].

    The actor divides by the rows of a mini-batch, padded and masked ones included, because that number is the same on
    every rank. The factor N / N_valid (or N / N_open) turns this into the average that the objective asks for, and is
    the same for all mini-batches of a step.
    """
    counted_N = valid_N & trajectories.final_N
    weight_N = trajectory_weights(
        torch.from_numpy(auxiliary_reward(trajectories, air)),
        torch.from_numpy(trajectories.prompt_N),
        torch.from_numpy(trajectories.group_N),
        torch.from_numpy(trajectories.is_anchor_N),
        torch.from_numpy(counted_N),
        regularizer=air.regularizer,
        estimator=air.estimator,
        gap=air.gap,
        shrinkage=air.gap_shrinkage,
    ).numpy()
    if air.normalize_by == "open":
        counted_N = counted_N & ~trajectories.is_anchor_N
    scale = len(trajectories.keys) / max(int(counted_N.sum()), 1)
    # Every output of a session shares the weight of its final one.
    return np.where(valid_N, weight_N[trajectories.session_N] * scale, 0.0).astype(np.float32)
