"""A recipe is checked before anything starts: one clear line for each thing that cannot work, and what to do.

verl's ``main_ppo`` calls ``validate_config`` first, before Ray; :func:`check_recipes_first` puts our check in front of
it. A recipe without an ``air:`` key is none of our business and passes untouched.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from wrapt import wrap_function_wrapper

from verl_air.config import AirConfig
from verl_air.data.groups import read_groups
from verl_air.data.schema import open_table
from verl_air.errors import AirError, ConfigError
from verl_air.objective import get_regularizer
from verl_air.rewards import validate_routes

MODES = ("air_sync", "air_colocate_async", "air_separate_async")
OUR_REWARD = "pkg://verl_air.rewards"


def check_recipes_first(module: Any) -> None:
    """Wrap ``verl.utils.config.validate_config``: on a faulty AIR recipe, print the fault and exit with status 2."""

    def checked(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        config = args[0] if args else kwargs["config"]
        try:
            check_recipe(config)
        except AirError as error:
            print(f"verl-air: {error}", file=sys.stderr)
            raise SystemExit(2) from error
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
    get_regularizer(air.regularizer)
    _check_trainer(config, mode)
    _check_batch(config, air, mode)
    _check_loss(config, air)
    _check_model(config)
    _check_data(config, air)
    _check_rewards(config, air)
    return air


def _check_trainer(config: DictConfig, mode: Any) -> None:
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


def _check_batch(config: DictConfig, air: AirConfig, mode: str) -> None:
    batch, size = int(config.data.train_batch_size), air.group_size
    made_of = f"a meta-group has {size} prompts (air.anchors_per_intent + air.open_per_intent)"
    if batch % size:
        nearest = max(size, batch // size * size)
        raise ConfigError(
            f"data.train_batch_size={batch} cannot hold whole meta-groups: {made_of}. Use a multiple, say {nearest}."
        )
    sync_steps = int(OmegaConf.select(config, f"trainer.v1.{mode.removeprefix('air_')}.parameter_sync_step", default=1))
    if sync_steps > 1 and (batch % sync_steps or batch // sync_steps % size):
        raise ConfigError(
            f"data.train_batch_size={batch} over parameter_sync_step={sync_steps} leaves batches that cannot hold "
            f"whole meta-groups: {made_of}."
        )
    _check_micro_batches(config)
    gen_batch = config.data.get("gen_batch_size", None)
    if mode == "air_sync" and gen_batch not in (None, 1) and gen_batch % size:
        raise ConfigError(f"data.gen_batch_size={gen_batch} cannot hold whole meta-groups: {made_of}.")


def _check_micro_batches(config: DictConfig) -> None:
    """verl finds this out in the first step, after minutes of start-up (workers/engine/utils.py)."""
    role = config.actor_rollout_ref
    if role.actor.strategy not in ("fsdp", "fsdp2") or role.actor.use_dynamic_bsz:
        return
    ranks = int(config.trainer.n_gpus_per_node) * int(config.trainer.nnodes)
    ranks //= max(int(OmegaConf.select(role, "actor.ulysses_sequence_parallel_size", default=1) or 1), 1)
    sizes = {
        "actor.ppo_micro_batch_size_per_gpu": int(role.actor.ppo_mini_batch_size),
        "rollout.log_prob_micro_batch_size_per_gpu": int(config.data.train_batch_size),
    }
    for key, prompts in sizes.items():
        micro, rows = OmegaConf.select(role, key), prompts * int(role.rollout.n) // max(ranks, 1)
        if micro and rows % int(micro):
            raise ConfigError(
                f"actor_rollout_ref.{key}={micro} does not divide the {rows} trajectories that each of {ranks} rank(s) "
                f"gets ({prompts} prompts x {role.rollout.n} completions)"
            )


def _check_loss(config: DictConfig, air: AirConfig) -> None:
    role, rollout = config.actor_rollout_ref, config.actor_rollout_ref.rollout
    if air.active and air.estimator == "loo" and int(rollout.n) < 2:
        raise ConfigError(f"air.estimator=loo needs actor_rollout_ref.rollout.n >= 2, got {rollout.n}")
    if air.gap_shrinkage > 0 and int(rollout.n) < 2:
        raise ConfigError(f"air.gap_shrinkage needs actor_rollout_ref.rollout.n >= 2, got {rollout.n}")
    if OmegaConf.select(config, "distillation.enabled", default=False):
        raise ConfigError("distillation replaces the actor's loss, and so does AIR: set distillation.enabled=False")
    context_parallel = OmegaConf.select(role, "actor.megatron.context_parallel_size", default=1) or 1
    if role.actor.strategy == "megatron" and context_parallel > 1 and role.actor.loss_agg_mode == "seq-mean-token-mean":
        raise ConfigError(
            "actor.loss_agg_mode=seq-mean-token-mean (GSPO's) is rejected by verl's Megatron engine with "
            f"context_parallel_size={context_parallel}. Use context_parallel_size=1 or another loss_agg_mode."
        )
    mini_batch, epochs = int(role.actor.ppo_mini_batch_size), int(role.actor.ppo_epochs)
    if air.active and air.importance == "none" and (epochs > 1 or mini_batch < int(config.data.train_batch_size)):
        warnings.warn(
            f"actor.ppo_epochs={epochs} and ppo_mini_batch_size={mini_batch} make later updates of a step off-policy, "
            "which AIR's auxiliary term does not correct for with air.importance=none. Consider air.importance=ratio.",
            stacklevel=2,
        )


def _check_model(config: DictConfig) -> None:
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


def _files(value: Any) -> list[str]:
    return [str(path) for path in (value if OmegaConf.is_list(value) or isinstance(value, list | tuple) else [value])]


def _check_data(config: DictConfig, air: AirConfig) -> None:
    for key in ("train_files", "val_files"):
        for path in _files(config.data[key]):
            if "://" not in path:
                open_table(path)
    local = [path for path in _files(config.data.train_files) if "://" not in path]
    index = read_groups(local, air.anchors_per_intent, air.open_per_intent)
    intents = int(config.data.train_batch_size) // air.group_size
    if len(index) < intents:
        raise ConfigError(
            f"data.train_batch_size={config.data.train_batch_size} takes {intents} intents a step, and "
            f"{', '.join(local)} hold only {len(index)}"
        )


def _legacy_keys(config: DictConfig) -> Iterator[str]:
    """Top-level reward keys of older releases that verl 0.9.1 accepts and then ignores (its tracker, 7331)."""

    def set_leaves(node: Any, prefix: str) -> Iterator[str]:
        for key, value in node.items():
            name = f"{prefix}.{key}"
            if OmegaConf.is_dict(value):
                yield from set_leaves(value, name)
            elif value is not None:
                yield name

    for section in ("custom_reward_function", "reward_model", "sandbox_fusion"):
        node = config.get(section, None)
        if OmegaConf.is_dict(node):
            yield from set_leaves(node, section)


def _check_rewards(config: DictConfig, air: AirConfig) -> None:
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
    validate_routes(**kwargs)  # type: ignore[arg-type]
