"""Scores completions as training does: the same ``compute_score``, with the ``reward_kwargs`` of a recipe."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from verl_air.compose import read_recipe
from verl_air.data.schema import DataRow
from verl_air.errors import ConfigError
from verl_air.rewards import ScoringPlan, compute_score
from verl_air.rewards.judge import close_clients

_IN_RECIPE = "reward.custom_reward_function.reward_kwargs"
_ROW = ("index", "intent_id", "role", "context", "family", "domain", "split", "extras")


class ScoredRows(Protocol):
    """Where scored rows go: a mapping, or a store."""

    def __setitem__(self, position: int, row: dict[str, Any], /) -> None: ...


@dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation takes from a recipe.

    max_response_length: of ``data``, in tokens; None in a file that has rewards alone.
    data_files: those that it trains and validates on.
    """

    reward_kwargs: dict[str, Any]
    max_response_length: int | None = None
    data_files: tuple[str, ...] = ()


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
        files = [OmegaConf.select(config, f"data.{key}") or () for key in ("train_files", "val_files")]
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: the reward settings cannot be read ({error})") from error
    if not isinstance(kwargs, dict):
        raise ConfigError(f"{path}: has neither {_IN_RECIPE} nor routes")
    named = (file for each in files for file in ([each] if isinstance(each, str) else each))
    return EvaluationSettings(
        {str(name): value for name, value in kwargs.items()}, None if length is None else int(length), tuple(named)
    )


def merge_reward_kwargs(
    kwargs: Mapping[str, Any], *, routes: Sequence[str] = (), modules: Sequence[str] = (), judge: Sequence[str] = ()
) -> dict[str, Any]:
    """Add what a command line gives: ``DOMAIN/ROLE[/SPLIT]=NAME``, modules, and ``KEY=VALUE`` of the judge's settings.

    Raises:
        ConfigError: one of them is malformed, or the whole cannot work.
    """
    merged = dict(kwargs)
    merged["routes"] = {**(kwargs.get("routes") or {}), **read_pairs(routes, "--route", "DOMAIN/ROLE=NAME")}
    merged["modules"] = [*(kwargs.get("modules") or ()), *modules]
    if judge:
        values = {name: yaml.safe_load(value) for name, value in read_pairs(judge, "--judge", "KEY=VALUE").items()}
        for name, value in values.items():
            if not kwargs.get("judges"):
                merged["judge"] = {**(merged.get("judge") or {}), name: value}
                continue
            of, dot, key = name.partition(".")
            if not dot:
                raise ConfigError(f"--judge {name}: the recipe has several judges; write NAME.KEY=VALUE")
            merged["judges"] = {**merged["judges"], of: {**(merged["judges"].get(of) or {}), key: value}}
    ScoringPlan(**merged)
    return merged


def read_pairs(items: Sequence[str], option: str, form: str) -> dict[str, str]:
    """What a command line gives as ``NAME=VALUE``.

    Raises:
        ConfigError: an item has another form.
    """
    pairs = [item.partition("=") for item in items]
    for item, pair in zip(items, pairs, strict=True):
        if not all(pair):
            raise ConfigError(f"{option} {item}: write {form}")
    return {name: value for name, _, value in pairs}


def check_scoring(reward_kwargs: Mapping[str, Any], rows: Iterable[DataRow]) -> None:
    """Every kind of row has a route, and every judge that is asked gives a verdict.

    Raises:
        ConfigError: a judge gives none; the log says why.
        RewardError: no route matches.
    """
    plan = ScoringPlan(**reward_kwargs)
    kinds = {(row["data_source"], row["extra_info"]["role"]): row for row in rows}
    judged = {}
    for (source, _), row in kinds.items():
        bound = plan.reward_for(source, row["extra_info"])
        if bound.reward.wants_judge:
            judged[id(bound)] = bound.reward.name, row
    found: dict[int, dict[str, Any]] = {}
    with Scorer(reward_kwargs, found) as scorer:
        for key, (_, row) in judged.items():
            text = plan.format.write("I cannot help with that.").removeprefix(plan.format.prefill)
            truth = row["reward_model"]["ground_truth"]
            scorer.submit(key, {**row["extra_info"], "output": text, "gts": truth})
        scorer.wait()
    for key, (name, row) in judged.items():
        if found[key]["abstained"]:
            raise ConfigError(
                f"reward {name!r}, which scores {row['data_source']}, gives no verdict on a plain reply: see the log "
                "for the reason, and correct the judge (--judge KEY=VALUE). Nothing was generated"
            )


class Scorer:
    """Scores rows in a thread of its own, many at once; a context manager, which keeps the judge's connections.

    Args:
        reward_kwargs: as in a recipe.
        results: position -> stored row with its scores, set in that thread as soon as a row is scored.
        concurrency: completions in flight.
    """

    def __init__(
        self, reward_kwargs: Mapping[str, Any], results: ScoredRows | dict[int, dict[str, Any]], concurrency: int = 64
    ) -> None:
        self._kwargs = dict(reward_kwargs)
        self._results = results
        self._loop = asyncio.new_event_loop()
        self._free = asyncio.Semaphore(concurrency)
        self._open: set[Future[None]] = set()  # and those that failed
        self._failed: Future[None] | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="scorer", daemon=True)

    def __enter__(self) -> Scorer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, position: int, row: Mapping[str, Any]) -> None:
        """Have the ``output`` of a stored row scored.

        Raises:
            ConfigError, RewardError: the recipe is at fault, or a row submitted earlier. A judge that fails abstains.
        """
        if self._failed is not None:
            self._failed.result()
        future = asyncio.run_coroutine_threadsafe(self._score(position, row), self._loop)
        self._open.add(future)
        future.add_done_callback(self._done)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for all rows, or for so many seconds; returns whether all are scored.

        Raises:
            ConfigError, RewardError: see :meth:`submit`.
        """
        done, rest = wait(self._open.copy(), timeout, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        return not rest

    def _done(self, future: Future[None]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self._failed = future
        else:
            self._open.discard(future)

    async def _close(self) -> None:
        """Rows that are not scored yet are left out."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await close_clients()

    async def _score(self, position: int, row: Mapping[str, Any]) -> None:
        source = f"{row.get('domain') or ''}/{row['split']}"
        info = {name: row.get(name) for name in _ROW}
        async with self._free:
            scores = await compute_score(source, row["output"], row.get("gts"), info, **self._kwargs)
        self._results[position] = {**row, **scores}
