"""What a recipe reads: model folders, data files and reward functions.

Each check raises a ``ConfigError`` or ``DataError`` that names what is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from omegaconf import DictConfig, OmegaConf

from verl_air.config import AirConfig
from verl_air.data.groups import read_groups
from verl_air.data.mixing import mix
from verl_air.data.schema import open_table, read_extra_columns
from verl_air.errors import ConfigError
from verl_air.rewards import ScoringPlan
from verl_air.training.rows import GROUP_KEY

OUR_REWARD = "pkg://verl_air.rewards"


def check_model(config: DictConfig) -> None:
    """Model folders are there."""
    paths = {"actor_rollout_ref.model.path": config.actor_rollout_ref.model.path}
    if config.reward.reward_model.enable:
        paths["reward.reward_model.model_path"] = config.reward.reward_model.model_path
    for key, path in paths.items():
        if not path:
            raise ConfigError(f"{key} is not set")
        path = os.path.expanduser(str(path))
        is_hub_name = path.count("/") == 1 and not path.startswith((".", "/")) and not Path(path.split("/")[0]).exists()
        is_remote = "://" in path
        if not (is_hub_name or is_remote) and not (Path(path) / "config.json").is_file():
            raise ConfigError(f"{key}={path}: no such model folder (it should hold a config.json)")


def _files(config: DictConfig, *keys: str) -> list[str]:
    values = [config.data[key] for key in keys]
    return [str(path) for value in values for path in (value if OmegaConf.is_list(value) else [value])]


def _local_files(config: DictConfig, *keys: str) -> list[str]:
    """Data files of this machine; those with a scheme (``hdfs://``) are left to verl."""
    return [path for path in _files(config, *keys) if "://" not in path]


def check_data(config: DictConfig, air: AirConfig) -> None:
    """Data files are there, readable, and hold whole meta-groups, enough for a batch."""
    for path in _local_files(config, "train_files", "val_files"):
        open_table(path)
    for path in _local_files(config, "val_files"):
        read_extra_columns(path, GROUP_KEY)  # of which validation counts every intent
    local = _local_files(config, "train_files")
    index = read_groups(local, air.anchors_per_intent, air.open_per_intent)
    intents = int(config.data.train_batch_size) // air.group_size
    if len(index) < intents:
        raise ConfigError(
            f"data.train_batch_size={config.data.train_batch_size} takes {intents} intents per step, and "
            f"{', '.join(local)} hold only {len(index)}"
        )
    if air.domain_weights and len(local) == len(_files(config, "train_files")):
        extras = pa.concat_tables([read_extra_columns(path, ("extras",)) for path in local])["extras"]
        mix(air.domain_weights, index, extras)


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
    kwargs = OmegaConf.to_container(function.get("reward_kwargs", None) or OmegaConf.create({}), resolve=True)
    _check_routes(config, ScoringPlan(**kwargs))  # type: ignore[arg-type]


def check_judge(config: DictConfig, air: AirConfig) -> str:
    """Judges that can be reached before training tell replies of known kind apart; returns what was found.

    Raises:
        ConfigError: one of them does not, or gives no verdicts.
    """
    from verl_air.data.check.judge import prove_judges, require_judges  # imports pandas

    function = config.reward.custom_reward_function
    if not air.check_judge or str(function.path) != OUR_REWARD:
        return "not checked" + ("" if air.check_judge else " (air.check_judge=False)")
    kwargs: Any = OmegaConf.to_container(function.reward_kwargs, resolve=True)
    return require_judges(prove_judges(kwargs, _local_files(config, "train_files", "val_files")))


def _check_routes(config: DictConfig, plan: ScoringPlan) -> None:
    """Every kind of row in the data finds its reward, and a reward that asks a judge has one.

    In a reward worker either fault would look like a failed rollout.
    """
    served = bool(config.reward.reward_model.enable) or (plan.judge.base_url or plan.judge.in_process) is not None
    for path in _local_files(config, "train_files", "val_files"):
        kinds = read_extra_columns(path, ("domain", "role", "split"))
        for kind in kinds.group_by(kinds.column_names).aggregate([]).to_pylist():
            bound = plan.reward_for(f"{kind['domain']}/{kind['split']}", kind)
            if bound.reward.wants_judge and not served:
                place = "/".join((kind["domain"], kind["role"], kind["split"]))
                raise ConfigError(
                    f"reward {bound.reward.name!r}, to which {place} is routed, asks a judge and there is "
                    "none: set reward.reward_model.enable=True, or name a server under reward_kwargs.judge.base_url "
                    "(or a small model's folder under reward_kwargs.judge.in_process)"
                )
