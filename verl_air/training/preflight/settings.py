"""Settings of a recipe that contradict each other or what verl can do."""

from __future__ import annotations

import warnings
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_air.config import AirConfig
from verl_air.errors import ConfigError
from verl_air.objective import get_regularizer

MODES = ("air_sync", "air_colocate_async", "air_separate_async")


def check_trainer(config: DictConfig, mode: Any) -> None:
    """The trainer is ours, and nothing else decides what it trains on.

    Raises:
        ConfigError: it is not so.
    """
    if not config.trainer.get("use_v1", True):
        raise ConfigError("trainer.use_v1=False selects verl's legacy trainer, which ignores `air:`. Leave it at True.")
    if mode not in MODES:
        raise ConfigError(
            f"trainer.v1.trainer_mode={mode} ignores the recipe's `air:` key. Choose one of {', '.join(MODES)}."
        )
    custom = OmegaConf.select(config, "trainer.v1.sampler.custom_sampler.path")
    if custom:
        raise ConfigError(
            f"trainer.v1.sampler.custom_sampler.path={custom}: AIR needs its own replay buffer, which hands on whole "
            "meta-groups. Remove the key."
        )


def check_batch(config: DictConfig, air: AirConfig, mode: str) -> None:
    """Batches hold whole meta-groups.

    Raises:
        ConfigError: it is not so.
    """
    batch, size = int(config.data.train_batch_size), air.group_size
    made_of = f"a meta-group has {size} prompts (air.anchors_per_intent + air.open_per_intent)"
    if batch % size:
        nearest = max(size, batch // size * size)
        raise ConfigError(
            f"data.train_batch_size={batch} cannot hold whole meta-groups: {made_of}. Use a multiple, say {nearest}."
        )
    sync_steps = int(OmegaConf.select(config, f"trainer.v1.{mode.removeprefix('air_')}.parameter_sync_step", default=1))
    if sync_steps > 1 and (batch % sync_steps or batch // sync_steps % size):
        raise ConfigError(
            f"data.train_batch_size={batch} over parameter_sync_step={sync_steps} leaves batches that cannot hold "
            f"whole meta-groups: {made_of}."
        )
    gen_batch = config.data.get("gen_batch_size", None)
    if mode == "air_sync" and gen_batch not in (None, 1) and gen_batch % size:
        raise ConfigError(f"data.gen_batch_size={gen_batch} cannot hold whole meta-groups: {made_of}.")


def check_micro_batches(config: DictConfig) -> None:
    """Micro-batches divide what a rank gets.

    verl finds this out in the first step, after minutes of start-up (workers/engine/utils.py).

    Raises:
        ConfigError: they do not.
    """
    role = config.actor_rollout_ref
    if role.actor.strategy not in ("fsdp", "fsdp2") or role.actor.use_dynamic_bsz:
        return
    ranks = int(config.trainer.n_gpus_per_node) * int(config.trainer.nnodes)
    ranks //= max(int(OmegaConf.select(role, "actor.ulysses_sequence_parallel_size", default=1) or 1), 1)
    sizes = {
        "actor.ppo_micro_batch_size_per_gpu": int(role.actor.ppo_mini_batch_size),
        "rollout.log_prob_micro_batch_size_per_gpu": int(config.data.train_batch_size),
    }
    for key, prompts in sizes.items():
        micro, rows = OmegaConf.select(role, key), prompts * int(role.rollout.n) // max(ranks, 1)
        if micro and rows % int(micro):
            raise ConfigError(
                f"actor_rollout_ref.{key}={micro} does not divide the {rows} trajectories that each of {ranks} rank(s) "
                f"gets ({prompts} prompts x {role.rollout.n} completions)"
            )


def check_loss(config: DictConfig, air: AirConfig) -> None:
    """The objective fits the base algorithm and the engine.

    Raises:
        ConfigError: it is not so.
    """
    get_regularizer(air.regularizer)
    role, rollout = config.actor_rollout_ref, config.actor_rollout_ref.rollout
    if air.active and air.estimator == "loo" and int(rollout.n) < 2:
        raise ConfigError(f"air.estimator=loo needs actor_rollout_ref.rollout.n >= 2, got {rollout.n}")
    if air.gap_shrinkage > 0 and int(rollout.n) < 2:
        raise ConfigError(f"air.gap_shrinkage needs actor_rollout_ref.rollout.n >= 2, got {rollout.n}")
    if OmegaConf.select(config, "distillation.enabled", default=False):
        raise ConfigError("distillation replaces the actor's loss, and so does AIR: set distillation.enabled=False")
    context_parallel = OmegaConf.select(role, "actor.megatron.context_parallel_size", default=1) or 1
    if role.actor.strategy == "megatron" and context_parallel > 1 and role.actor.loss_agg_mode == "seq-mean-token-mean":
        raise ConfigError(
            "actor.loss_agg_mode=seq-mean-token-mean (GSPO's) is rejected by verl's Megatron engine with "
            f"context_parallel_size={context_parallel}. Use context_parallel_size=1 or another loss_agg_mode."
        )
    mini_batch, epochs = int(role.actor.ppo_mini_batch_size), int(role.actor.ppo_epochs)
    if air.active and air.importance == "none" and (epochs > 1 or mini_batch < int(config.data.train_batch_size)):
        warnings.warn(
            f"actor.ppo_epochs={epochs} and ppo_mini_batch_size={mini_batch} make later updates of a step off-policy, "
            "which AIR's auxiliary term does not correct for with air.importance=none. Consider air.importance=ratio.",
            stacklevel=2,
        )
