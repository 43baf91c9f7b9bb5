"""Finding a recipe and composing it as ``python -m verl.trainer.main_ppo`` does, without importing verl."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from verl_air.errors import ConfigError
from verl_air.settings import closest

INSTALLED = "verl_air.recipes"
FOLDERS = (
    "run_dir",
    "data_dir",
    "playground",
    "trainer.default_local_dir",
    "trainer.rollout_data_dir",
    "trainer.validation_data_dir",
)
"""Folders that a recipe names; the first three are keys of our recipes."""


def register_resolvers() -> None:
    """Let recipes say ``${air_cpu.NAME:...}``: sizes that follow the model (``verl_air.cluster.cpu_plan``)."""
    for name in ("bucket_megabytes", "kv_cache_bytes", "micro_batch"):

        def resolve(*args: Any, name: str = name) -> int:
            size: int = getattr(import_module("verl_air.cluster.cpu_plan"), name)(*args)
            return size

        OmegaConf.register_new_resolver(f"air_cpu.{name}", resolve, replace=True)


register_resolvers()


def read_recipe(
    recipe: str | Path, overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> DictConfig:
    """Compose a recipe over verl's own defaults.

    Args:
        recipe: the path of a YAML file; or a name, looked up in ``config_dir`` if that is given, else in ``./recipes``
            and then among the installed recipes (``pkg://verl_air.recipes``).
        overrides: Hydra's, as on the command line.
        config_dir: the folder that is given to ``main_ppo`` as ``--config-dir``.

    Raises:
        ConfigError: there is no such recipe, or it does not compose.
    """
    from hydra import compose, initialize_config_dir
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    folder, name = _find(recipe, config_dir)
    try:
        with initialize_config_dir(config_dir=str(_verl_folder()), version_base=None):
            # Hydra's public API has no --config-dir. This is what that option does; verl's own folder goes before the
            # recipe's, and what the recipe's hydra.searchpath adds goes after it.
            hydra = GlobalHydra.instance().hydra
            search_path = hydra.config_loader.get_search_path()
            search_path.prepend("command-line", f"file://{folder}", anchor="schema")
            hydra.config_loader = ConfigLoaderImpl(search_path)
            return compose(name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{folder}/{name}.yaml does not compose: {' '.join(str(error).split())}") from error


def hydra_arguments(recipe: str | Path, *, config_dir: str | Path | None = None) -> list[str]:
    """What ``main_ppo`` needs on its command line to run the recipe that :func:`read_recipe` finds.

    Raises:
        ConfigError: there is no such recipe.
    """
    folder, name = _find(recipe, config_dir)
    return ["--config-dir", str(folder), "--config-name", name]


def resolve_folders(config: DictConfig) -> dict[str, str]:
    """Make a recipe's relative folders absolute, in place and once: processes on other nodes may work elsewhere.

    Returns:
        The keys that were changed, with their new values.
    """
    changed = {}
    for key in FOLDERS:
        folder = OmegaConf.select(config, key)
        if folder and "://" not in str(folder) and not os.path.isabs(os.path.expanduser(str(folder))):
            changed[key] = str(Path.cwd() / str(folder))
            OmegaConf.update(config, key, changed[key])
    return changed


def _find(recipe: str | Path, config_dir: str | Path | None) -> tuple[Path, str]:
    """A recipe's folder, absolute, and its name there."""
    file = Path(recipe)
    if file.suffix == ".yaml" and (config_dir is None or file.is_file()):
        folders, name = [file.parent], file.stem
    else:
        folders = [Path("recipes"), *_installed_folder()] if config_dir is None else [Path(config_dir)]
        name = str(recipe).removesuffix(".yaml")
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder.resolve(), name
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise ConfigError(
        f"no recipe {name!r} in {' or '.join(map(str, folders))}{closest(name, known)}; "
        f"there: {', '.join(known) or 'none'}"
    )


def _installed_folder() -> list[Path]:
    spec = find_spec(INSTALLED)
    return [] if spec is None or spec.origin is None else [Path(spec.origin).parent]


def _verl_folder() -> Path:
    spec = find_spec("verl")
    if spec is None or spec.origin is None:
        raise ConfigError("a recipe is composed over verl's own defaults, and verl is not installed: pip install verl")
    return Path(spec.origin).parent / "trainer" / "config"
