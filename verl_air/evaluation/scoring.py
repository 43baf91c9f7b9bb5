"""Scores completions as training does: the same ``compute_score``, with the ``reward_kwargs`` of a recipe."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from verl_air.compose import compose_recipe
from verl_air.errors import ConfigError
from verl_air.rewards import compute_score, validate_routes
from verl_air.rewards.judge import close_clients

_IN_RECIPE = "reward.custom_reward_function.reward_kwargs"
_ROW = ("index", "intent_id", "role", "context", "family", "domain", "split", "extras")


@dataclass(frozen=True)
class RecipeSettings:
    """What an evaluation takes from a recipe.

    max_response_length: of ``data``, in tokens; None in a file that holds rewards alone.
    """

    reward_kwargs: dict[str, Any]
    max_response_length: int | None


def read_recipe_settings(path: str | os.PathLike[str]) -> RecipeSettings:
    """From a recipe, a run's folder (its resolved recipe), or a YAML file that holds ``reward_kwargs`` bare.

    A recipe, known by its ``defaults``, is composed as ``main_ppo`` composes it: routes may stand in what it includes.

    Raises:
        ConfigError: there are no rewards, or they refer to what the file does not hold.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path}: no such file; give a recipe (recipes/NAME.yaml), a run's folder, or a YAML file")
    is_recipe = not path.is_dir()
    if not is_recipe:
        inside = (path / "checkpoints" / "config.yaml", path / "config.yaml")
        path = next((file for file in inside if file.is_file()), path)
    try:
        config = OmegaConf.load(path)
        if is_recipe and "defaults" in config:
            config = compose_recipe(path.parent, path.stem)
        found = OmegaConf.select(config, _IN_RECIPE)
        if found is None and OmegaConf.select(config, "routes") is not None:
            found = config
        plain = None if found is None else OmegaConf.to_container(found, resolve=True)
        length = OmegaConf.select(config, "data.max_response_length")
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: the reward settings cannot be read ({error})") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path}: neither {_IN_RECIPE} nor routes are there")
    return RecipeSettings({str(name): value for name, value in plain.items()}, None if length is None else int(length))


def merge_reward_kwargs(
    kwargs: Mapping[str, Any], *, routes: Sequence[str] = (), modules: Sequence[str] = (), judge: Sequence[str] = ()
) -> dict[str, Any]:
    """Add what a command line gives: ``DOMAIN/ROLE[/SPLIT]=NAME``, modules, and ``KEY=VALUE`` of the judge's settings.

    Raises:
        ConfigError: one of them is malformed, or the whole cannot work.
    """
    merged = dict(kwargs)
    merged["routes"] = {**(kwargs.get("routes") or {}), **_pairs(routes, "--route", "DOMAIN/ROLE=NAME")}
    merged["modules"] = [*(kwargs.get("modules") or ()), *modules]
    if judge:
        values = {name: yaml.safe_load(value) for name, value in _pairs(judge, "--judge", "KEY=VALUE").items()}
        merged["judge"] = {**(kwargs.get("judge") or {}), **values}
    validate_routes(**merged)
    return merged


class Scorer:
    """Scores many completions at once; to be used as a context manager, which holds the judge's connections.

    Args:
        reward_kwargs: as in a recipe.
        concurrency: completions in flight.
    """

    def __init__(self, reward_kwargs: Mapping[str, Any], concurrency: int = 64) -> None:
        self._kwargs = dict(reward_kwargs)
        self._concurrency = concurrency
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(close_clients())
        self._loop.close()

    def score(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        """Score stored rows by their ``output``, ``gts`` and identity, in order.

        Raises:
            ConfigError, RewardError: the recipe or a row is at fault. A judge that fails abstains instead.
        """
        return self._loop.run_until_complete(self._score(rows))

    async def _score(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        free = asyncio.Semaphore(self._concurrency)

        async def one(row: Mapping[str, Any]) -> dict[str, float]:
            async with free:
                source = f"{row.get('domain') or ''}/{row['split']}"
                info = {name: row.get(name) for name in _ROW}
                return await compute_score(source, row["output"], row.get("gts"), info, **self._kwargs)

        return list(await asyncio.gather(*map(one, rows)))


def _pairs(items: Sequence[str], option: str, form: str) -> dict[str, str]:
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{option} {item}: write {form}")
        pairs[name] = value
    return pairs
