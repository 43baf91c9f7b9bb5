"""The AIR objective: pure tensor mathematics that knows no verl and no Ray.

Axes, named in every variable: Z intents (meta-groups), S prompts (contexts), K completions of a prompt,
N trajectories (all completions of a batch, any order), T response tokens.

    reward_N -> trajectory_weights -> weight_N        once, on the whole batch, detached
    weight_N, log_prob_NT -> surrogate_loss -> J_aux  in the actor's loss, on any part of the batch
"""

from verl_air.objective.accuracy import GroupAccuracy, group_accuracy
from verl_air.objective.meta_group import MetaGroups, group_trajectories
from verl_air.objective.regularizers import (
    ESTIMATORS,
    GAPS,
    get_regularizer,
    register_regularizer,
    regularizer_names,
    trajectory_weights,
)
from verl_air.objective.rewards import unit_scale
from verl_air.objective.surrogate import surrogate_loss

__all__ = [
    "ESTIMATORS",
    "GAPS",
    "GroupAccuracy",
    "MetaGroups",
    "get_regularizer",
    "group_accuracy",
    "group_trajectories",
    "register_regularizer",
    "regularizer_names",
    "surrogate_loss",
    "trajectory_weights",
    "unit_scale",
]
