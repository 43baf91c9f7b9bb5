"""Edits of a sampled batch in TransferQueue: rows masked out of the loss, and the weights written beside advantages."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from verl_air.training.actor_loss import WEIGHT_FIELD
from verl_air.training.trajectories import Trajectories


def mask_rows(batch: Any, masked_N: np.ndarray) -> None:
    """Take rows out of the step: no group mean, no advantage, no loss, no token counted.

    Their masks become zero, so that every mean verl takes over tokens or sequences leaves them out; their rewards
    become zero, so that a NaN does not spread; and each gets a uid of its own, so that GRPO's group statistics do not
    see them.
    """
    rows = np.flatnonzero(masked_N)
    if not len(rows):
        return
    keys = [batch.keys[row] for row in rows]
    masks = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["response_mask"])
    zeros = [torch.zeros_like(mask) for mask in masks["response_mask"].unbind()]
    fields = TensorDict(
        {
            "response_mask": _nested(zeros),
            "loss_mask": _nested(zeros),
            "rm_scores": _nested([zero.to(torch.float32) for zero in zeros]),
        },
        batch_size=len(keys),
    )
    tu.assign_non_tensor_stack(fields, "uid", [f"masked{key}" for key in keys])
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=fields)


def clear_lone_advantages(batch: Any, trajectories: Trajectories, valid_N: np.ndarray) -> None:
    """Zero the advantage of a completion that is the only valid one left of several.

    verl gives a group of one its raw reward as advantage, without a baseline; after abstentions that would be noise.
    """
    real_N = trajectories.final_N & ~trajectories.padding_N
    completions_S = np.bincount(trajectories.prompt_N[real_N], minlength=int(trajectories.prompt_N.max()) + 1)
    valid_S = np.bincount(trajectories.prompt_N[real_N & valid_N], minlength=len(completions_S))
    lone_S = (valid_S == 1) & (completions_S > 1)
    rows = np.flatnonzero(lone_S[trajectories.prompt_N] & valid_N)
    if not len(rows):
        return
    keys = [batch.keys[row] for row in rows]
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["advantages", "returns"])
    zeros = {
        name: _nested([torch.zeros_like(row) for row in data[name].unbind()]) for name in ("advantages", "returns")
    }
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=TensorDict(zeros, batch_size=len(keys)))


def put_weights(batch: Any, weight_N: torch.Tensor) -> Any:
    """Write each trajectory's weight beside its advantages, repeated over its response tokens."""
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
    rows = [weight.expand(len(mask)) for weight, mask in zip(weight_N, data["response_mask"].unbind(), strict=True)]
    fields = TensorDict({WEIGHT_FIELD: _nested(rows)}, batch_size=len(batch))
    return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)


def _nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)
