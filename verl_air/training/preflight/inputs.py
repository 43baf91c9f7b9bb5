"""What a recipe reads: data files and reward functions.

Each check raises a ``ConfigError`` or ``DataError`` that names what is wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from omegaconf import DictConfig, OmegaConf

from verl_air.config import AirConfig
from verl_air.data.framings import check_style
from verl_air.data.groups import read_groups
from verl_air.data.mixing import mix
from verl_air.data.schema import open_table, read_extra_columns
from verl_air.errors import ConfigError, DataError
from verl_air.rewards import ScoringPlan
from verl_air.training.rows import GROUP_KEY

OUR_REWARD = "pkg://verl_air.rewards"
_TRUE = ("1", "true", "yes", "on")


def _files(config: DictConfig, *keys: str) -> list[str]:
    values = [config.data[key] for key in keys]
    return [str(path) for value in values for path in (value if OmegaConf.is_list(value) else [value])]


def readable(config: DictConfig, *keys: str) -> list[str]:
    """Data files as verl reads them: ``hdfs://`` is copied to ``data.cache_dir`` first, all else stays where it is.

    Raises:
        DataError: a file of HDFS did not arrive, or stores may not be read.
    """
    files = _files(config, *keys)
    for path in files:
        if "://" in path and not path.startswith("hdfs://") and os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
            raise DataError(
                f"{path}: HF_HUB_OFFLINE is set, and verl's `datasets` then reads no store at all. Unset it, or copy "
                "the file."
            )
    cache = config.data.get("cache_dir", None)
    return [_from_hdfs(path, cache) if path.startswith("hdfs://") else path for path in files]


def _from_hdfs(path: str, cache: str | None) -> str:
    from verl.utils.fs import copy_to_local  # a file that is already there is not copied again

    local = copy_to_local(path, cache_dir=os.path.expanduser(cache or "~/.cache/verl/rlhf"))
    if not Path(local).is_file():
        raise DataError(
            f"{path}: verl's copy (`hdfs dfs -get`) brought no file to {local}. Is `hdfs` on the PATH, and is the file "
            "there?"
        )
    return local


def check_data(config: DictConfig, air: AirConfig) -> None:
    """Data files are there, readable, and hold whole meta-groups, enough for a batch."""
    train_files, val_files = readable(config, "train_files"), readable(config, "val_files")
    for path in (*train_files, *val_files):
        open_table(path)
    for path in val_files:
        read_extra_columns(path, GROUP_KEY)  # of which validation counts every intent
    index = read_groups(train_files, air.anchors_per_intent, air.open_per_intent)
    intents = int(config.data.train_batch_size) // air.group_size
    if len(index) < intents:
        raise ConfigError(
            f"data.train_batch_size={config.data.train_batch_size} takes {intents} intents per step, and "
            f"{', '.join(train_files)} hold only {len(index)}"
        )
    if air.consistency:
        for path in train_files:
            _check_plain_requests(path)
    if air.domain_weights:
        extras = pa.concat_tables([read_extra_columns(path, ("extras",)) for path in train_files])["extras"]
        mix(air.domain_weights, index, extras)


def _check_plain_requests(path: str) -> None:
    """Each open row says what the plain request is, which ``air.consistency`` compares it with."""
    for number, info in enumerate(read_extra_columns(path, ("role", "extras")).to_pylist()):
        extras = json.loads(info["extras"] or "{}")
        if info["role"] == "open" and not (extras.get("request") or extras.get("plain_prompt")):
            raise DataError(
                f"{path}, row {number}: air.consistency needs the plain request of each open row: put `request` "
                "(text) or `plain_prompt` (text or messages) into extra_info.extras"
            )


def _legacy_keys(config: DictConfig) -> Iterator[str]:
    """Top-level reward keys of older releases that verl 0.9.1 accepts and then ignores (its tracker, 7331)."""

    def set_leaves(node: Any, name: str) -> Iterator[str]:
        if OmegaConf.is_dict(node):
            for key, value in node.items():
                yield from set_leaves(value, f"{name}.{key}")
        elif node is not None:
            yield name

    for section in ("custom_reward_function", "reward_model", "sandbox_fusion"):
        if OmegaConf.is_dict(config.get(section, None)):
            yield from set_leaves(config[section], section)


def check_rewards(config: DictConfig, air: AirConfig) -> None:
    """Reward keys are ones that verl reads, and routes name registered rewards."""
    for key in _legacy_keys(config):
        raise ConfigError(f"{key}: verl ignores this key at the top level; write reward.{key}")
    function = config.reward.custom_reward_function
    if not function.path:
        raise ConfigError(
            "reward.custom_reward_function.path is not set, so verl would score by data_source. Set it to "
            f"{OUR_REWARD} (name: compute_score) and give routes under reward_kwargs."
        )
    if str(function.path) != OUR_REWARD:
        needed = [f"air.{k}={v}" for k, v in (("aux_reward", "task"), ("reward_scale", "unit")) if getattr(air, k) == v]
        if needed:
            raise ConfigError(
                f"{' and '.join(needed)} need the columns that {OUR_REWARD} returns, and "
                f"reward.custom_reward_function.path is {function.path}"
            )
        return
    _check_routes(config, plan_of(config))


def plan_of(config: DictConfig) -> ScoringPlan:
    """The recipe's ``reward_kwargs``, compiled."""
    section = config.reward.custom_reward_function.get("reward_kwargs", None) or OmegaConf.create({})
    kwargs: Any = OmegaConf.to_container(section, resolve=True)
    return ScoringPlan(**kwargs)


def _check_routes(config: DictConfig, plan: ScoringPlan) -> None:
    """Every kind of row in the data finds its reward, and a reward that asks a judge has one.

    In a reward worker either fault would look like a failed rollout. Prompts ask for the response style that is scored.
    """
    check_style(readable(config, "train_files", "val_files"), plan.format.style)
    served = bool(config.reward.reward_model.enable)
    for path in readable(config, "train_files", "val_files"):
        kinds = read_extra_columns(path, ("domain", "role", "split"))
        for kind in kinds.group_by(kinds.column_names).aggregate([]).to_pylist():
            bound = plan.reward_for(f"{kind['domain']}/{kind['split']}", kind)
            if bound.reward.wants_judge and not (served or plan.judge_of(bound).is_elsewhere):
                place = "/".join((kind["domain"], kind["role"], kind["split"]))
                raise ConfigError(
                    f"reward {bound.reward.name!r}, to which {place} is routed, asks a judge and there is "
                    "none: set reward.reward_model.enable=True, or name a server under reward_kwargs.judge.base_url "
                    "(or a small model's folder under reward_kwargs.judge.in_process)"
                )
