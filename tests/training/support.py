"""Hand-made batches with every kind of row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict.tensorclass import NonTensorData, NonTensorStack

from verl_air.training.batch import Trajectories, read_trajectories
from verl_air.training.rows import new_group_uids

EOS, K, NAN = 7, 3, float("nan")
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
