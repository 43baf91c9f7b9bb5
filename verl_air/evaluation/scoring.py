"""Scores completions as training does: the same ``compute_score``, with the ``reward_kwargs`` of a recipe."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from verl_air.compose import read_recipe
from verl_air.errors import ConfigError
from verl_air.rewards import compute_score, validate_routes
from verl_air.rewards.judge import close_clients

_IN_RECIPE = "reward.custom_reward_function.reward_kwargs"
_ROW = ("index", "intent_id", "role", "context", "family", "domain", "split", "extras")


@dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation takes from a recipe.

    max_response_length: of ``data``, in tokens; None in a file that has rewards alone.
    """

    reward_kwargs: dict[str, Any]
    max_response_length: int | None = None


def read_evaluation_settings(path: str | os.PathLike[str]) -> EvaluationSettings:
    """From a recipe, a run's folder (its resolved recipe), or a YAML file that has the ``reward_kwargs`` alone.

    A recipe, identified by its ``defaults``, is composed as ``main_ppo`` composes it.

    Raises:
        ConfigError: there are no rewards, or they refer to what the file does not have.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path}: no such file; give a recipe (recipes/NAME.yaml), a run's folder, or a YAML file")
    if is_run := path.is_dir():
        path = next((f for f in (path / "checkpoints" / "config.yaml", path / "config.yaml") if f.is_file()), path)
    try:
        config = OmegaConf.load(path)
        if not is_run and "defaults" in config:
            config = read_recipe(path)
        found = OmegaConf.select(config, _IN_RECIPE)
        if found is None and OmegaConf.select(config, "routes") is not None:
            found = config
        kwargs = None if found is None else OmegaConf.to_container(found, resolve=True)
        length = OmegaConf.select(config, "data.max_response_length")
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: the reward settings cannot be read ({error})") from error
    if not isinstance(kwargs, dict):
        raise ConfigError(f"{path}: has neither {_IN_RECIPE} nor routes")
    return EvaluationSettings(
        {str(name): value for name, value in kwargs.items()}, None if length is None else int(length)
    )


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
        for name, value in values.items():
            if not kwargs.get("judges"):
                merged["judge"] = {**(merged.get("judge") or {}), name: value}
                continue
            of, dot, key = name.partition(".")
            if not dot:
                raise ConfigError(f"--judge {name}: the recipe has several judges; write NAME.KEY=VALUE")
            merged["judges"] = {**merged["judges"], of: {**(merged["judges"].get(of) or {}), key: value}}
    validate_routes(**merged)
    return merged


def _pairs(items: Sequence[str], option: str, form: str) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for item, pair in zip(items, pairs, strict=True):
        if not all(pair):
            raise ConfigError(f"{option} {item}: write {form}")
    return {name: value for name, _, value in pairs}


class Scorer:
    """Scores many completions at once; a context manager, which keeps the judge's connections.

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

    def score(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The stored rows with the scores of their ``output``, in order.

        Raises:
            ConfigError, RewardError: the recipe or a row is at fault. A judge that fails abstains instead.
        """
        return self._loop.run_until_complete(self._score(rows))

    async def _score(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        free = asyncio.Semaphore(self._concurrency)

        async def one(row: Mapping[str, Any]) -> dict[str, Any]:
            source = f"{row.get('domain') or ''}/{row['split']}"
            info = {name: row.get(name) for name in _ROW}
            async with free:
                return {**row, **await compute_score(source, row["output"], row.get("gts"), info, **self._kwargs)}

        return list(await asyncio.gather(*map(one, rows)))
