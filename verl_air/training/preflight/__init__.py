"""A recipe is checked before anything starts: one clear line for what cannot work, and what to do.

verl's ``main_ppo`` calls ``validate_config`` first, before Ray; :func:`check_recipes_first` puts our check in front of
it. A recipe without an ``air:`` key passes untouched. Importing this package imports neither torch nor verl.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from wrapt import wrap_function_wrapper

from verl_air.config import AirConfig
from verl_air.errors import AirError, ConfigError
from verl_air.training.preflight.inputs import check_data, check_judge, check_model, check_rewards
from verl_air.training.preflight.sizes import check_sizes
from verl_air.training.run_folder import remember_command

__all__ = ["MODES", "check_recipe", "check_recipes_first", "check_settings", "check_sizes"]

MODES = ("air_sync", "air_colocate_async", "air_separate_async")


def check_recipes_first(module: Any) -> None:
    """Wrap ``verl.utils.config.validate_config``: on a faulty AIR recipe, print the fault and exit with status 2."""

    def checked(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            check_recipe(args[0] if args else kwargs["config"])
        except AirError as error:
            print(f"verl-air: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        remember_command()
        return wrapped(*args, **kwargs)

    wrap_function_wrapper(module, "validate_config", checked)


def check_recipe(config: DictConfig) -> AirConfig | None:
    """Check a composed recipe and what it reads.

    Returns:
        The options, or None for a recipe that is not ours.

    Raises:
        ConfigError: something in the recipe cannot work.
        DataError: a data file is missing, malformed or holds incomplete meta-groups.
    """
    air = check_settings(config)
    if air is not None:
        check_model(config)
        check_data(config, air)
        check_rewards(config, air)
        check_judge(config, air)
    return air


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
    air = AirConfig.from_mapping(OmegaConf.to_container(section, resolve=True))
    _check_trainer(config, mode)
    _check_checkpoints(config, air)
    _check_loss(config, air)
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
    mini_batch, epochs = int(role.actor.ppo_mini_batch_size), int(role.actor.ppo_epochs)
    if air.active and air.importance == "none" and (epochs > 1 or mini_batch < int(config.data.train_batch_size)):
        warnings.warn(
            f"actor.ppo_epochs={epochs} and ppo_mini_batch_size={mini_batch} make later updates of a step off-policy, "
            "which AIR's auxiliary term does not correct for with air.importance=none. Consider air.importance=ratio.",
            stacklevel=2,
        )
