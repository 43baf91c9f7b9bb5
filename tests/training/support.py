"""Hand-made batches with every kind of row, and a queue in memory."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
import transfer_queue
from omegaconf import OmegaConf
from tensordict.tensorclass import NonTensorData, NonTensorStack
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from verl_air.config import AirConfig
from verl_air.training.batch import Trajectories, read_trajectories
from verl_air.training.failures import NOTES, FailureGuard
from verl_air.training.replay_buffer import whole_groups_class
from verl_air.training.rows import new_group_uids

EOS, K, NAN = 7, 3, float("nan")
GROUP = 3
TWO_GROUPS = [[[2.5, 2.5, 0.25], [0.25, 0.25, 2.5]], [[2.5, 2.5, 2.5], [0.25, -2.0, 0.25]]]


def batch(groups: list[list[list[float]]], *, tasks: bool = True, pad: int = 0, domains: str = "toy") -> Trajectories:
    """Rewards by group, prompt and completion; the first prompt of a group is its anchor. NaN: abstained."""
    keys, rewards, infos, extra = [], [], [], []
    for group, domain in zip(groups, domains.split() * len(groups), strict=False):
        for position, (uid, completions) in enumerate(zip(new_group_uids(len(group)), group, strict=True)):
            for session, reward in enumerate(completions):
                keys.append(f"{uid}_{session}_0")
                rewards.append(reward)
                info: dict[str, Any] = {"acc": float(reward > 0), "abstained": float(np.isnan(reward))}
                if tasks:
                    info |= {"task_reward": reward - 1.25, "task_min": -1.0, "task_max": 1.25}
                    info |= {"score_min": -2.0, "score_max": 2.5}
                infos.append(info)
                extra.append({"role": "open" if position else "anchor", "intent_id": uid[:8], "domain": domain})
    keys += [f"pad123_{row}_0" for row in range(pad)]
    responses = [[5] * (row % 3) + [EOS] for row in range(len(keys))]
    return read(keys, [*rewards, *[0.0] * pad], responses, extra + extra[:1] * pad, infos + infos[:1] * pad)


def read(
    keys: list[str],
    rewards: list[float],
    responses: list[list[int]],
    extra: list[dict],
    infos: list[dict] | None = None,
) -> Trajectories:
    """What TransferQueue holds for these rows, read; the reward is on the last token."""
    data = {
        "rm_scores": nested(
            [torch.tensor([0.0] * (len(r) - 1) + [s]) for r, s in zip(responses, rewards, strict=True)]
        ),
        "responses": nested([torch.tensor(response) for response in responses]),
        "extra_info": stack(extra),
    }
    if infos is not None:
        data["extra_fields"] = stack([{"reward_extra_info": info} for info in infos])
    tags = [{"is_padding": key.startswith("pad")} for key in keys]
    return read_trajectories(keys, tags, data, max_response_length=3, eos_token_ids=frozenset({EOS}))


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def stack(items: list[Any]) -> NonTensorStack:
    return NonTensorStack.from_list([NonTensorData(item) for item in items])


class MemoryQueue:
    """As much of TransferQueue as a replay buffer and an agent loop see: keys and tags by partition."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tags: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.lists = 0
        for name in ("kv_list", "kv_clear", "kv_batch_put", "async_kv_put", "async_kv_batch_put"):
            monkeypatch.setattr(transfer_queue, name, getattr(self, name))

    def kv_list(self, partition_id: str | None = None) -> dict[str, dict[str, dict[str, Any]]]:
        self.lists += 1
        return copy.deepcopy(dict(self.tags))

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            self.tags[partition_id].pop(key, None)

    def kv_batch_put(self, keys: list[str], partition_id: str, fields: Any = None, tags: Any = ()) -> None:
        for key, tag in zip(keys, tags, strict=True):
            self.tags[partition_id].setdefault(key, {}).update(tag)

    async def async_kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        self.kv_batch_put([key], partition_id, tags=[tag])

    async def async_kv_batch_put(self, keys: list[str], partition_id: str, fields: Any, tags: Any) -> None:
        self.kv_batch_put(keys, partition_id, tags=tags)

    def prompts(self, *uids: str, status: str, partition: str = "train") -> None:
        """Put prompts, or change their status; a finished one has a trajectory."""
        tag = {"is_prompt": True, "status": status, "global_steps": 1}
        self.kv_batch_put(list(uids), partition, tags=[tag] * len(uids))
        if status == "finished":
            self.kv_batch_put([f"{uid}_0_0" for uid in uids], partition, tags=[{"seq_len": 4}] * len(uids))

    def note(self, uid: str, *, kind: str = "OSError", row: str = "row 3", **more: Any) -> None:
        """What an agent-loop worker leaves of one exception."""
        tag = {"kind": kind, "message": "connection reset", "died": False, "validate": False, "intent": "toy/z"}
        self.kv_batch_put([f"{uid}_0"], NOTES, tags=[{**tag, "row": row, **more}])


def buffer_of(base: type, *, evict_failed: bool = True, threshold: int | None = None, **settings: Any) -> Any:
    """One of verl's replay buffers, with meta-groups of ``GROUP`` prompts and limits on failures."""
    buffer = base(
        trainer_mode="sync" if base is ReplayBuffer else "colocate_async",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=threshold,
        max_off_policy_strategy="drop",
        sampler_kwargs=OmegaConf.create({}),
        **{"refill_fn": lambda count: None} | settings,
    )
    buffer.__class__ = whole_groups_class(base)
    buffer.group_size = GROUP
    buffer.evict_failed = evict_failed
    buffer.on_validation_batch = lambda batch: None
    buffer.set_aside = []
    buffer.failures = FailureGuard(AirConfig(), buffer.set_aside.append)
    return buffer
