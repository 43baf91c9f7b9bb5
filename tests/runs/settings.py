"""Overrides of the quickstart recipe that several runs share."""

from __future__ import annotations

SMALL = (
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=24",
)
"""Two meta-groups a step."""

_KWARGS = "reward.custom_reward_function.reward_kwargs"
ORACLE = (
    "reward.reward_model.enable=False",
    "reward.reward_model.enable_resource_pool=False",
    f"{_KWARGS}.routes={{playground/anchor:multiple_choice,playground/open/train:playground_oracle}}",
)
"""No judge server: the oracle scores training too."""
