"""What a recipe reads: model folders, data files and reward functions.

Each check raises a ``ConfigError`` or ``DataError`` that names what is wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from omegaconf import DictConfig, OmegaConf

from verl_air.config import AirConfig
from verl_air.data.framings import check_style
from verl_air.data.groups import read_groups
from verl_air.data.mixing import mix
from verl_air.data.schema import open_table, read_extra_columns
from verl_air.errors import ConfigError, DataError
from verl_air.rewards import ScoringPlan
from verl_air.rewards.probe import probe_judge
from verl_air.training.rows import GROUP_KEY

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
OUR_REWARD = "pkg://verl_air.rewards"
_VOCABULARY_PADDING = 0.05
"""Share of a vocabulary that may be without a token: it is padded to a size that divides well."""
_TRUE = ("1", "true", "yes", "on")


def check_model(config: DictConfig) -> None:
    """Model folders are there, and the policy fits its tokenizer, its prompts and the recipe's lengths."""
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
    _check_policy(config)


def _check_policy(config: DictConfig) -> None:
    """What would otherwise come up after minutes: no chat template, another model's tokenizer, too short a context."""
    from transformers import AutoConfig, AutoTokenizer

    key, role = "actor_rollout_ref.model.path", config.actor_rollout_ref.model
    path = os.path.expanduser(str(role.path))
    trusted = {"trust_remote_code": bool(role.get("trust_remote_code", False))}
    try:
        model = AutoConfig.from_pretrained(path, **trusted).get_text_config()
        tokenizer = AutoTokenizer.from_pretrained(
            os.path.expanduser(str(role.get("tokenizer_path") or path)), **trusted
        )
    except (OSError, ValueError) as error:
        if not Path(path).is_dir():
            return  # of the hub, and not on this machine
        raise ConfigError(
            f"{key}={path}: config or tokenizer cannot be read: {' '.join(str(error).split())}"
        ) from error
    if not (tokenizer.chat_template or role.get("custom_chat_template")):
        raise ConfigError(
            f"{key}={path}: its tokenizer has no chat template to render prompts with. Take the model's "
            "chat version, or set actor_rollout_ref.model.custom_chat_template."
        )
    words, vocabulary = len(tokenizer), int(model.vocab_size)
    if not (1 - _VOCABULARY_PADDING) * vocabulary <= words <= vocabulary:
        raise ConfigError(f"{key}={path}: the tokenizer has {words} tokens and the model {vocabulary}: not its own one")
    if words < vocabulary:
        warnings.warn(
            f"{key}={path}: {vocabulary - words} of the model's {vocabulary} token ids are not in its tokenizer; "
            "if sampled, they decode to nothing",
            stacklevel=2,
        )
    length, context = int(config.data.max_prompt_length) + int(config.data.max_response_length), _context(model)
    if context is not None and length > context:
        raise ConfigError(
            f"{key}={path}: its context of {context} tokens is shorter than data.max_prompt_length + "
            f"data.max_response_length = {length}"
        )


def _context(model: Any) -> int | None:
    """Tokens that the model was made for; None where it says nothing, or its positions are scaled."""
    scaling = getattr(model, "rope_parameters", None) or getattr(model, "rope_scaling", None) or {}
    if scaling.get("rope_type", "default") != "default":
        return None
    positions: int | None = getattr(model, "max_position_embeddings", None)
    return positions


def _files(config: DictConfig, *keys: str) -> list[str]:
    values = [config.data[key] for key in keys]
    return [str(path) for value in values for path in (value if OmegaConf.is_list(value) else [value])]


def _readable(config: DictConfig, *keys: str) -> list[str]:
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
    train_files, val_files = _readable(config, "train_files"), _readable(config, "val_files")
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
    _check_routes(config, _plan(config))


def _plan(config: DictConfig) -> ScoringPlan:
    kwargs = config.reward.custom_reward_function.get("reward_kwargs", None) or OmegaConf.create({})
    return ScoringPlan(**OmegaConf.to_container(kwargs, resolve=True))  # type: ignore[arg-type]


def check_judges_answer(config: DictConfig) -> list[str]:
    """Ask each judge that is not verl's own once, for each kind of row that it judges, before anything starts.

    Returns:
        A line per server: what leaves this machine, and about how much the run will ask for at most.

    Raises:
        ConfigError: a judge cannot work; see :func:`~verl_air.rewards.probe.probe_judge`.
    """
    if str(config.reward.custom_reward_function.path) != OUR_REWARD:
        return []
    plan, local = _plan(config), _readable(config, "train_files")
    if not any(judge.is_elsewhere for judge in plan.judges.values()):
        return []
    rows = [read_extra_columns(path, ("domain", "role", "split", "extras")) for path in local]
    total = sum(map(len, rows))
    steps = config.trainer.total_training_steps or config.trainer.total_epochs * total // config.data.train_batch_size
    completions = int(steps) * int(config.data.train_batch_size) * int(config.actor_rollout_ref.rollout.n)
    asked: dict[tuple[str, str], list[float]] = {}
    for table in rows:
        groups = table.group_by(["domain", "role", "split"], use_threads=False).aggregate(
            [("extras", "first"), ("extras", "count")]
        )
        for kind in groups.to_pylist():
            row = {**kind, "extras": kind["extras_first"]}
            bound = plan.reward_for(f"{kind['domain']}/{kind['split']}", row)
            if bound.judge is None or not plan.judge_of(bound).is_elsewhere:
                continue
            found = asyncio.run(probe_judge(plan, bound, row, int(config.data.max_response_length)))
            count = completions * kind["extras_count"] / total
            if found.address is not None:
                sums = asked.setdefault((found.name, found.address), [0.0, 0.0])
                sums[:] = sums[0] + count * found.requests, sums[1] + count * found.tokens
    return [
        f"judge {name!r} answers at {address}; requests and responses "
        f"{'stay on' if urlsplit(address).hostname in _THIS_MACHINE else 'leave'} this machine; the run asks about "
        f"{requests:,.0f} times, for at most about {tokens:,.0f} tokens, validation not counted"
        for (name, address), (requests, tokens) in asked.items()
    ]


def check_judges_separate(config: DictConfig, air: AirConfig) -> str:
    """Judges that can be reached before training tell replies of known kind apart; returns what was found.

    Raises:
        ConfigError: one of them does not, or gives no verdicts.
    """
    from verl_air.data.check.judge import prove_judges, require_judges  # imports pandas

    function = config.reward.custom_reward_function
    if not air.check_judge or str(function.path) != OUR_REWARD:
        return "not checked" + ("" if air.check_judge else " (air.check_judge=False)")
    kwargs: Any = OmegaConf.to_container(function.reward_kwargs, resolve=True)
    return require_judges(prove_judges(kwargs, _readable(config, "train_files", "val_files")))


def _check_routes(config: DictConfig, plan: ScoringPlan) -> None:
    """Every kind of row in the data finds its reward, and a reward that asks a judge has one.

    In a reward worker either fault would look like a failed rollout. Prompts ask for the response style that is scored.
    """
    check_style(_readable(config, "train_files", "val_files"), plan.format.style)
    served = bool(config.reward.reward_model.enable)
    for path in _readable(config, "train_files", "val_files"):
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
