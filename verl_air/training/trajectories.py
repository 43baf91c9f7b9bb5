"""A sampled batch as arrays: who each trajectory is, what it earned, and whether it takes part.

Axis: N trajectories, in the order of the batch's keys. verl pads and reorders batches: nothing here relies on position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from verl_air.errors import DataError, RewardError
from verl_air.training.group_ids import group_of, session_of, uid_of

REWARD_INFO = ("acc", "abstained", "task_reward", "score_min", "score_max", "task_min", "task_max")
"""The reward columns we read; the full schema is ``verl_air.rewards.REWARD_KEYS``."""

FIELDS = ("rm_scores", "response_mask", "responses", "extra_info", "extra_fields")
"""What is fetched from TransferQueue. Reward columns are inside ``extra_fields``."""


@dataclass(frozen=True)
class Trajectories:
    """One batch. Reward columns are NaN where the reward function did not give them.

    keys: verl's trajectory keys.
    prompt_N, group_N: prompt uid and meta-group of each, as compact integers.
    role_N, domain_N: from the row's ``extra_info``.
    reward_N: total reward, the sum of ``rm_scores``.
    info_N: the columns of ``REWARD_INFO``.
    length_N: response tokens; truncated_N: cut off by the length limit.
    padding_N: synthetic rows of verl's.
    final_N: the last output of its session, on which the reward stands; others share its weight.
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
    def abstained_N(self) -> np.ndarray:
        """Rows whose reward function could not decide, or returned something that is not a finite number."""
        said_so = np.nan_to_num(self.info_N["abstained"], nan=0.0) > 0
        return ~self.padding_N & (said_so | ~np.isfinite(self.reward_N))

    def incomplete_groups_N(self, group_size: int, completions: int) -> np.ndarray:
        """Rows of meta-groups that lack a prompt or a completion, because a rollout failed: bool [N]."""
        real = self.final_N & ~self.padding_N
        trajectories = np.bincount(self.group_N[real], minlength=int(self.group_N.max()) + 1)
        return ~self.padding_N & (trajectories[self.group_N] != group_size * completions)


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
        eos_token_ids: a response that ends with none of them at full length was cut off.

    Raises:
        DataError: a row's ``extra_info`` lacks ``role`` or ``intent_id``.
    """
    padding_N = np.array([bool(tag.get("is_padding", False)) for tag in tags])
    extra_info = [_as_dict(item) for item in list(data["extra_info"])]
    for key, info in zip(keys, extra_info, strict=True):
        if "role" not in info or "intent_id" not in info:
            raise DataError(f"trajectory {key}: extra_info lacks role or intent_id; it has {', '.join(sorted(info))}")
    responses = data["responses"].unbind()
    length_N = np.array([len(response) for response in responses])
    cut_off = [len(r) >= max_response_length and int(r[-1]) not in eos_token_ids for r in responses]
    final_N, session_N = _final_rows(keys)
    return Trajectories(
        keys=list(keys),
        prompt_N=_intern([uid_of(key) for key in keys]),
        group_N=_intern([group_of(uid_of(key)) for key in keys]),
        role_N=np.array([info["role"] for info in extra_info], dtype=object),
        domain_N=np.array([info.get("domain", "") for info in extra_info], dtype=object),
        reward_N=np.array([float(scores.sum()) for scores in data["rm_scores"].unbind()]),
        info_N=_reward_info(data, len(keys)),
        length_N=length_N,
        truncated_N=np.array(cut_off) & ~padding_N,
        padding_N=padding_N,
        final_N=final_N,
        session_N=session_N,
    )


def require_info(trajectories: Trajectories, name: str, option: str) -> np.ndarray:
    """A reward column that an option cannot do without.

    Raises:
        RewardError: the reward function did not return it.
    """
    values_N = trajectories.info_N[name]
    missing = ~np.isfinite(values_N) & ~trajectories.padding_N & ~trajectories.abstained_N
    if missing.any():
        key = trajectories.keys[int(np.flatnonzero(missing)[0])]
        raise RewardError(
            f"{option} needs {name!r} from the reward function, and trajectory {key} has none. Use "
            "reward.custom_reward_function path=pkg://verl_air.rewards name=compute_score, or return that key."
        )
    return values_N


def _as_dict(item: Any) -> dict[str, Any]:
    item = getattr(item, "data", item)
    return dict(item) if isinstance(item, Mapping) else {}


def _intern(names: list[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1]


def _final_rows(keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    last: dict[str, int] = {}
    for row, key in enumerate(keys):
        session, index = session_of(key), int(key.rsplit("_", 1)[1])
        if session not in last or int(keys[last[session]].rsplit("_", 1)[1]) < index:
            last[session] = row
    session_N = np.array([last[session_of(key)] for key in keys])
    return session_N == np.arange(len(keys)), session_N


def _reward_info(data: Mapping[str, Any], rows: int) -> dict[str, np.ndarray]:
    extra_fields = list(data["extra_fields"]) if "extra_fields" in data else [{}] * rows
    infos = [_as_dict(item).get("reward_extra_info") or {} for item in extra_fields]
    return {name: _floats([info.get(name) for info in infos]) for name in REWARD_INFO}


def _floats(values: list[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values])
