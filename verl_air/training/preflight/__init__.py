"""A recipe is checked before anything starts: one clear line for what cannot work, and what to do.

verl's ``main_ppo`` calls ``validate_config`` first, before Ray; the plugin puts :func:`prepare` in front of it. A
recipe without an ``air:`` key passes untouched. Importing this package imports neither torch nor verl.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_air.compose import resolve_folders
from verl_air.config import AirConfig
from verl_air.errors import AirError, ConfigError
from verl_air.training import redaction
from verl_air.training.preflight.inputs import check_data, check_rewards
from verl_air.training.preflight.judges import check_judges_answer, check_judges_separate
from verl_air.training.preflight.models import check_model
from verl_air.training.preflight.sizes import check_sizes

__all__ = ["MODES", "check_recipe", "check_settings", "check_sizes", "prepare"]

MODES = ("air_sync", "air_colocate_async", "air_separate_async")


def prepare(config: DictConfig) -> None:
    """Check a recipe of ours in the driver, before Ray starts; on a fault, print it and exit with status 2."""
    try:
        resolve_folders(config)
        air = check_recipe(config)
    except AirError as error:
        redaction.scrub_refused(config)
        print(f"verl-air: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    redaction.protect(config)
    if air is not None:
        import_module("verl_air.training.actor_watch").watch_actors()


def check_recipe(config: DictConfig) -> AirConfig | None:
    """Check a composed recipe and what it reads; what could not be checked, and what judges said, goes to stderr.

    Returns:
        The options, or None for a recipe that is not ours.

    Raises:
        ConfigError: something in the recipe cannot work.
        DataError: a data file is missing, malformed or holds incomplete meta-groups.
    """
    air = check_settings(config)
    if air is not None:
        _say(check_model(config))
        check_data(config, air)
        check_rewards(config, air)
        _say(check_judges_answer(config))
        _say(check_judges_separate(config, air).splitlines())
    return air


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"verl-air: {line}", file=sys.stderr, flush=True)


def check_settings(config: DictConfig) -> AirConfig | None:
    """The part of :func:`check_recipe` that needs neither data nor model files.

    Raises:
        ConfigError: settings contradict each other, or what verl can do.
    """
    mode = OmegaConf.select(config, "trainer.v1.trainer_mode")
    section = config.get("air", None)
    if section is None:
        if mode in MODES:
            raise ConfigError(f"trainer.v1.trainer_mode={mode} needs an `air:` key (`air: {{}}` for defaults)")
        return None
    redaction.check_secrets(config)
    air = AirConfig.from_mapping(OmegaConf.to_container(section, resolve=True))
    _check_trainer(config, mode)
    _check_checkpoints(config, air)
    _check_loss(config, air)
    _check_adapters(config, air)
    _check_off_policy(config, air, str(mode))
    check_sizes(config)
    return air


def _check_trainer(config: DictConfig, mode: Any) -> None:
    """The trainer is ours, and nothing else decides what it trains on."""
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


def _check_adapters(config: DictConfig, air: AirConfig) -> None:
    """LoRA is where it has been shown to work: verl's FSDP engines, merged into the weights where vLLM has no GPU."""
    model, actor = config.actor_rollout_ref.model, config.actor_rollout_ref.actor
    rank = max(int(model.get("lora_rank", 0) or 0), int(OmegaConf.select(model, "lora.rank", default=0) or 0))
    if not rank:
        return
    if not str(actor.strategy).startswith("fsdp"):
        raise ConfigError(
            f"LoRA (rank {rank}) with actor.strategy={actor.strategy} is not supported with `air:`. Use "
            "actor.strategy=fsdp2, or train the whole model: lora_rank=0 and lora.rank=0"
        )
    if air.consistency:
        raise ConfigError(
            f"air.consistency={air.consistency} with LoRA (rank {rank}) is not supported: the reference policy is the "
            "actor without its adapters. Set air.consistency=0, or train the whole model"
        )
    if config.trainer.device == "cpu" and not OmegaConf.select(model, "lora.merge", default=False):
        raise ConfigError("actor_rollout_ref.model.lora.merge=False: vLLM on a CPU loads no adapters. Set it to True")


def _check_checkpoints(config: DictConfig, air: AirConfig) -> None:
    """A checkpoint that validation may choose is whole by then."""
    key = "actor_rollout_ref.actor.checkpoint.async_save"
    if air.best_metric is not None and OmegaConf.select(config, key, default=False):
        raise ConfigError(
            f"{key}=True: a checkpoint may be half written when validation finds it the best. Set it to False, or "
            "air.best_metric=null to keep none."
        )


def _check_loss(config: DictConfig, air: AirConfig) -> None:
    """The objective fits the base algorithm and the engine."""
    from verl_air.objective import get_regularizer  # imports torch

    get_regularizer(air.regularizer)
    role, completions = config.actor_rollout_ref, int(config.actor_rollout_ref.rollout.n)
    needs_two = {"air.estimator=loo": air.active and air.estimator == "loo", "air.gap_shrinkage": air.gap_shrinkage > 0}
    for option, needed in needs_two.items():
        if needed and completions < 2:
            raise ConfigError(f"{option} needs actor_rollout_ref.rollout.n >= 2, got {completions}")
    if OmegaConf.select(config, "distillation.enabled", default=False):
        raise ConfigError("distillation replaces the actor's loss, and so does AIR: set distillation.enabled=False")
    context_parallel = OmegaConf.select(role, "actor.megatron.context_parallel_size", default=1) or 1
    if (
        role.actor.strategy == "megatron"
        and context_parallel > 1
        and not role.actor.megatron.vanilla_mbridge
        and not role.model.use_remove_padding
    ):
        raise ConfigError(
            f"actor_rollout_ref.model.use_remove_padding=False is refused by verl's Megatron engine with "
            f"context_parallel_size={context_parallel}: megatron-bridge then averages the loss over tokens "
            "(calculate_per_token_loss), padding included. Leave it at True."
        )


def _check_off_policy(config: DictConfig, air: AirConfig, mode: str) -> None:
    """Policy loss and auxiliary loss correct for the same thing in the same way, and there is something to correct."""
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    mini_batch, epochs = int(actor.ppo_mini_batch_size), int(actor.ppo_epochs)
    updates = (
        f"actor.ppo_epochs={epochs} and ppo_mini_batch_size={mini_batch} of {config.data.train_batch_size} prompts"
    )
    several = epochs > 1 or mini_batch < int(config.data.train_batch_size)
    key = "algorithm.rollout_correction"
    correction = OmegaConf.select(config, key, default=None) or OmegaConf.create({})
    weighted = correction.get("rollout_is") and correction.get("rollout_is_threshold", 2.0) is not None
    bypass = bool(correction.get("bypass_mode", False))
    if air.old_log_probs == "reuse":
        faults = {
            f"trainer.v1.trainer_mode={mode}": mode != "air_sync",
            updates: several,
            "algorithm.use_kl_in_reward=True, which needs them before the update": config.algorithm.use_kl_in_reward,
            f"{key}.bypass_mode=True, which takes the rollout's": bypass,
            f"{key}.rollout_is_batch_normalize=True, which needs the whole batch": weighted
            and correction.get("rollout_is_batch_normalize", False),
            f"air.consistency={air.consistency}, which needs them before the update": air.consistency,
            "actor.router_replay.mode=R2, which records them": OmegaConf.select(actor, "router_replay.mode") == "R2",
        }
        for fault in (what for what, there in faults.items() if there):
            raise ConfigError(
                f"air.old_log_probs=reuse takes the log-probs of a step's only update, which must be on-policy; the "
                f"recipe has {fault}. Set air.old_log_probs=recompute."
            )
    if not air.active:
        return
    if air.importance == "none":
        if weighted or bypass:
            raise ConfigError(
                f"{key}.{'bypass_mode' if bypass else 'rollout_is'} corrects the policy loss alone for rollouts of an "
                "older policy. Set air.importance=ratio, so that the auxiliary loss is corrected alike, or remove it."
            )
        if several or mode != "air_sync":
            warnings.warn(
                f"{updates if several else mode}: updates are off-policy, which AIR's auxiliary term does not correct "
                "for with air.importance=none. Consider air.importance=ratio.",
                stacklevel=2,
            )
        return
    if mode != "air_sync" and not (weighted or bypass):
        raise ConfigError(
            f"air.importance=ratio with trainer_mode={mode}: verl recomputes old_log_probs with weights that are newer "
            f"than the rollouts, so their ratio corrects nothing. Set {key}.rollout_is=sequence (or token), which "
            f"corrects the policy loss too; or {key}.bypass_mode=True, which takes the rollout's log-probs as the old."
        )
    if not (weighted or bypass):
        return
    faults = {
        f"{key} needs the rollout's log-probs: set actor_rollout_ref.rollout.calculate_log_probs=True": (
            not rollout.calculate_log_probs
        ),
        "actor_rollout_ref.rollout.logprobs_mode=raw_logprobs leaves the temperature out of them, so ratios compare "
        "unlike policies. Set it to processed_logprobs.": (
            str(rollout.get("logprobs_mode", "")).startswith("raw") and float(rollout.temperature) != 1.0
        ),
        "actor.policy_loss.loss_mode=bypass_mode corrects inside the policy loss, where the auxiliary loss cannot "
        f"follow. Use {key}.rollout_is with another loss_mode.": actor.policy_loss.get("loss_mode") == "bypass_mode",
        f"{key}.bypass_mode=True: verl's v1 trainer then ignores rollout_is and rollout_rs. Set them to null, or "
        "bypass_mode to False.": bypass and (weighted or correction.get("rollout_rs")),
    }
    for fault in (what for what, there in faults.items() if there):
        raise ConfigError(f"air.importance=ratio: {fault}")
