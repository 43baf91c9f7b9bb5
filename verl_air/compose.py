"""Composing a recipe as ``python -m verl.trainer.main_ppo --config-dir DIR --config-name NAME`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from verl_air.errors import ConfigError


def compose_recipe(config_dir: str | Path, name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose a recipe over verl's own defaults.

    Raises:
        ConfigError: there is no such recipe, or it does not compose.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    folder = Path(config_dir).resolve()
    try:
        with initialize_config_dir(config_dir=str(folder), version_base=None):
            return compose(name, overrides=["hydra.searchpath=[pkg://verl.trainer.config]", *overrides])
    except HydraException as error:
        raise ConfigError(f"{folder}/{name}.yaml does not compose: {' '.join(str(error).split())}") from error
