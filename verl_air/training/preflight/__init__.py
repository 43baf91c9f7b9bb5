"""A recipe is checked before anything starts: one clear line for each thing that cannot work, and what to do.

verl's ``main_ppo`` calls ``validate_config`` first, before Ray; :func:`check_recipes_first` puts our check in front of
it. A recipe without an ``air:`` key is none of our business and passes untouched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from wrapt import wrap_function_wrapper

from verl_air.config import AirConfig
from verl_air.errors import AirError, ConfigError
from verl_air.training.preflight.inputs import check_data, check_model, check_rewards
from verl_air.training.preflight.settings import MODES, check_batch, check_loss, check_micro_batches, check_trainer
from verl_air.training.run_record import remember_command

__all__ = ["MODES", "check_recipe", "check_recipes_first"]


def check_recipes_first(module: Any) -> None:
    """Wrap ``verl.utils.config.validate_config``: on a faulty AIR recipe, print the fault and exit with status 2."""

    def checked(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        config = args[0] if args else kwargs["config"]
        try:
            check_recipe(config)
        except AirError as error:
            print(f"verl-air: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        remember_command()
        return wrapped(*args, **kwargs)

    wrap_function_wrapper(module, "validate_config", checked)


def check_recipe(config: DictConfig) -> AirConfig | None:
    """Check a composed recipe.

    Returns:
        The options, or None for a recipe that is not ours.

    Raises:
        ConfigError: something in the recipe cannot work.
        DataError: a data file is missing, malformed or holds incomplete meta-groups.
    """
    mode = OmegaConf.select(config, "trainer.v1.trainer_mode")
    section = config.get("air", None)
    if section is None:
        if mode in MODES:
            raise ConfigError(f"trainer.v1.trainer_mode={mode} needs an `air:` key (`air: {{}}` for defaults)")
        return None
    air = AirConfig.from_mapping(OmegaConf.to_container(section, resolve=True))
    check_trainer(config, mode)
    check_batch(config, air, mode)
    check_loss(config, air)
    check_micro_batches(config)
    check_model(config)
    check_data(config, air)
    check_rewards(config, air)
    return air
