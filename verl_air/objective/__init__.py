"""The AIR objective: pure tensor mathematics without verl and without Ray.

Axes, named in every variable: Z meta-groups (one intent each), S prompts (contexts), K completions per prompt,
N trajectories (all completions of a batch, in any order), T response tokens.

    reward_N -> trajectory_weights -> weight_N        once, on the whole batch, detached
    weight_N, log_prob_NT -> surrogate_loss -> J_aux  in the actor's loss, on any part of the batch
"""

from verl_air.objective.accuracy import GroupAccuracy, group_accuracy
from verl_air.objective.auxiliary_loss import (
    consistency_weight,
    importance_ratio,
    surrogate_loss,
    trajectory_weights,
    unit_scale,
)
from verl_air.objective.meta_group import MetaGroups, group_trajectories
from verl_air.objective.regularizers import get_regularizer, register_regularizer, regularizer_names

__all__ = [
    "GroupAccuracy",
    "MetaGroups",
    "consistency_weight",
    "get_regularizer",
    "group_accuracy",
    "group_trajectories",
    "importance_ratio",
    "register_regularizer",
    "regularizer_names",
    "surrogate_loss",
    "trajectory_weights",
    "unit_scale",
]
