"""A step's batch as arrays: who each trajectory is, what it earned, and its weight in the auxiliary loss.

Axis: N trajectories, in the order of the batch's keys. verl pads and reorders batches: nothing here relies on position.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from verl_air.config import AirConfig
from verl_air.errors import RewardError
from verl_air.objective import trajectory_weights, unit_scale
from verl_air.training.rows import as_dict, check_identity, group_of, session_of, uid_of

_READ = ("acc", "abstained", "task_reward", "judge_mass", "format_ok", "judge")
REWARD_INFO = (*_READ, "score_min", "score_max", "task_min", "task_max")
"""The reward columns we read; the full schema is ``verl_air.rewards.REWARD_KEYS``."""

FIELDS = ("rm_scores", "responses", "extra_info", "extra_fields")
"""What is read from TransferQueue. Reward columns are inside ``extra_fields``."""


@dataclass(frozen=True)
class Trajectories:
    """One batch. Reward columns are NaN where the reward function did not return them.

    keys: verl's trajectory keys.
    prompt_N, group_N: prompt uid and meta-group of each, as compact integers. Two visits to one intent are two groups.
    role_N, domain_N: from the row's ``extra_info``.
    reward_N: total reward, the sum of ``rm_scores``.
    info_N: the columns of ``REWARD_INFO``.
    length_N: response tokens; truncated_N: cut off by the length limit.
    padding_N: synthetic rows of verl's.
    final_N: the last output of its session, which holds the reward; others share its weight.
    session_N: index of each trajectory's final row.
    """

    keys: list[str]
    prompt_N: np.ndarray
    group_N: np.ndarray
    role_N: np.ndarray
    domain_N: np.ndarray
    reward_N: np.ndarray
    info_N: dict[str, np.ndarray]
    length_N: np.ndarray
    truncated_N: np.ndarray
    padding_N: np.ndarray
    final_N: np.ndarray
    session_N: np.ndarray

    @property
    def is_anchor_N(self) -> np.ndarray:
        """Anchor rows."""
        return self.role_N == "anchor"

    @property
    def real_N(self) -> np.ndarray:
        """One row per completion that was sampled: neither padding nor an earlier output of its session."""
        return self.final_N & ~self.padding_N

    @property
    def abstained_N(self) -> np.ndarray:
        """Rows whose reward function could not decide, or returned something that is not a finite number."""
        said_so_N = np.nan_to_num(self.info_N["abstained"], nan=0.0) > 0
        return ~self.padding_N & (said_so_N | ~np.isfinite(self.reward_N))

    def incomplete_groups_N(self, group_size: int, completions: int) -> np.ndarray:
        """Rows of meta-groups that lack a prompt or a completion, because a rollout failed: bool [N]."""
        count_Z = np.bincount(self.group_N[self.real_N], minlength=int(self.group_N.max()) + 1)
        return ~self.padding_N & (count_Z[self.group_N] != group_size * completions)

    def lone_N(self, valid_N: np.ndarray) -> np.ndarray:
        """Valid completions that are the only valid one left of several: bool [N].

        verl gives a group of one its raw reward as advantage, without a baseline; after abstentions that is noise.
        """
        count_S = np.bincount(self.prompt_N[self.real_N], minlength=int(self.prompt_N.max()) + 1)
        valid_S = np.bincount(self.prompt_N[self.real_N & valid_N], minlength=len(count_S))
        return valid_N & ((valid_S == 1) & (count_S > 1))[self.prompt_N]

    def required_info(self, name: str, option: str) -> np.ndarray:
        """A reward column that an option cannot do without.

        Raises:
            RewardError: the reward function did not return it.
        """
        values_N = self.info_N[name]
        missing_N = ~np.isfinite(values_N) & self.real_N & ~self.abstained_N
        if missing_N.any():
            raise RewardError(
                f"{option} needs {name!r} from the reward function, and trajectory "
                f"{self.keys[int(np.argmax(missing_N))]} has none. Use reward.custom_reward_function "
                "path=pkg://verl_air.rewards name=compute_score, or return that key."
            )
        return values_N


@cache
@cache
def end_token_ids(tokenizer: Any, model: str) -> frozenset[int]:
    """The tokens with which a model ends a response: its tokenizer's, and those of its generation config.

    Chat models often have several. A folder or hub name without a generation config has the tokenizer's alone.
    """
    from transformers import GenerationConfig

    found = {tokenizer.eos_token_id}
    for folder in {tokenizer.name_or_path, os.path.expanduser(model)}:  # the tokenizer may be of another folder
        with suppress(OSError):  # there is no generation_config.json
            configured = GenerationConfig.from_pretrained(folder).eos_token_id
            found |= set(configured) if isinstance(configured, list) else {configured}
    return frozenset(int(token) for token in found if token is not None)


def read_trajectories(
    keys: Sequence[str],
    tags: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any],
    *,
    max_response_length: int,
    eos_token_ids: frozenset[int],
) -> Trajectories:
    """Turn what TransferQueue holds for a batch into arrays.

    Args:
        keys, tags: of verl's ``KVBatchMeta``.
        data: the ``FIELDS`` that are there, as ``tq.kv_batch_get`` returns them.
        max_response_length: ``data.max_response_length``.
        eos_token_ids: a response of full length that ends with none of them was cut off.

    Raises:
        DataError: a row's ``extra_info`` lacks ``role`` or ``intent_id``.
    """
    extra_info = [as_dict(item) for item in list(data["extra_info"])]
    for key, info in zip(keys, extra_info, strict=True):
        check_identity(info, f"trajectory {key}")
    extra_fields = list(data["extra_fields"]) if "extra_fields" in data else [{}] * len(keys)
    infos = [as_dict(item).get("reward_extra_info") or {} for item in extra_fields]
    responses = data["responses"].unbind()
    cut_off = [len(r) >= max_response_length and int(r[-1]) not in eos_token_ids for r in responses]
    padding_N = np.array([bool(tag.get("is_padding", False)) for tag in tags])
    by_index = sorted(range(len(keys)), key=lambda row: int(keys[row].rsplit("_", 1)[1]))
    final_row = {session_of(keys[row]): row for row in by_index}
    session_N = np.array([final_row[session_of(key)] for key in keys])
    return Trajectories(
        keys=list(keys),
        prompt_N=_compact([uid_of(key) for key in keys]),
        group_N=_compact([group_of(uid_of(key)) for key in keys]),
        role_N=np.array([info["role"] for info in extra_info], dtype=object),
        domain_N=np.array([info.get("domain", "") for info in extra_info], dtype=object),
        reward_N=np.array([float(scores.sum()) for scores in data["rm_scores"].unbind()]),
        info_N={name: as_floats([info.get(name) for info in infos]) for name in REWARD_INFO},
        length_N=np.array([len(response) for response in responses]),
        truncated_N=np.array(cut_off) & ~padding_N,
        padding_N=padding_N,
        final_N=session_N == np.arange(len(keys)),
        session_N=session_N,
    )


def _compact(names: list[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1]


def as_floats(values: Sequence[Any]) -> np.ndarray:
    """A column of numbers, NaN where there is none."""
    return np.array([np.nan if value is None else float(value) for value in values])


def auxiliary_reward(trajectories: Trajectories, air: AirConfig) -> np.ndarray:
    """The reward that gap and weight are formed from: float64 [N] (``air.aux_reward``, ``air.reward_scale``).

    Raises:
        RewardError: the reward function did not return what the options need.
    """
    reward_N, prefix = trajectories.reward_N, "score"
    if air.aux_reward == "task":
        reward_N, prefix = trajectories.required_info("task_reward", "air.aux_reward=task"), "task"
    if air.reward_scale == "unit":
        min_N = trajectories.required_info(f"{prefix}_min", "air.reward_scale=unit")
        max_N = trajectories.required_info(f"{prefix}_max", "air.reward_scale=unit")
        known_N = np.isfinite(min_N) & np.isfinite(max_N)
        scaled = unit_scale(*(torch.from_numpy(values_N[known_N]) for values_N in (reward_N, min_N, max_N)))
        reward_N = reward_N.copy()
        reward_N[known_N] = scaled.numpy()
    return reward_N


def loss_weights(trajectories: Trajectories, valid_N: np.ndarray, air: AirConfig) -> np.ndarray:
    """The trajectory weights, scaled for the loss: float32 [N].

    The actor divides by the rows of a mini-batch, padded and masked ones included, because that number is the same on
    every rank. The factor N / N_valid (or N / N_open) turns this into the average that the objective asks for, and is
    the same for all mini-batches of a step.
    """
    counted_N = valid_N & trajectories.final_N
    reward_N = auxiliary_reward(trajectories, air)
    columns = (reward_N, trajectories.prompt_N, trajectories.group_N, trajectories.is_anchor_N, counted_N)
    acc_N = trajectories.info_N["acc"]
    weight_N = trajectory_weights(
        *map(torch.from_numpy, columns),
        right_N=torch.from_numpy(acc_N >= 1.0) if np.isfinite(acc_N[counted_N]).all() else None,
        regularizer=air.regularizer,
        estimator=air.estimator,
        gap=air.gap,
        shrinkage=air.gap_shrinkage,
        accuracy_prior=air.accuracy_prior,
    ).numpy()
    if air.normalize_by == "open":
        counted_N = counted_N & ~trajectories.is_anchor_N
    scale = len(trajectories.keys) / max(int(counted_N.sum()), 1)
    # Every output of a session shares the weight of its final one.
    return np.where(valid_N, weight_N[trajectories.session_N] * scale, 0.0).astype(np.float32)
