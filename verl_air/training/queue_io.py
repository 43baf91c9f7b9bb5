"""What is read from TransferQueue and written back to it in a step.

Besides verl's own read and write of advantages that is one read (``batch.FIELDS``), one write of weights, and one more
write each only if rows are masked, or if a lone completion has its advantage cleared. Masks and weights are not one
call: it would have to rewrite the masks of all rows, which takes 2 (288 rows) to 4 times (2304 rows) as long as both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from verl_air.training.actor_loss import WEIGHT_FIELD
from verl_air.training.batch import Trajectories


def read(batch: Any, *fields: str) -> Any:
    """Some fields of all rows of a batch, as a ``TensorDict``."""
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))


def put_weights(batch: Any, trajectories: Trajectories, weight_N: np.ndarray) -> None:
    """Write each trajectory's weight alongside its advantages, repeated over its response tokens."""
    _put(batch, trajectories, np.arange(len(weight_N)), {WEIGHT_FIELD: torch.from_numpy(weight_N)})


def put_tokens(batch: Any, fields: Mapping[str, list[torch.Tensor]]) -> None:
    """Write one value per response token of every row, in the order of the batch's keys."""
    columns = {name: torch.nested.as_nested_tensor(values, layout=torch.jagged) for name, values in fields.items()}
    data = TensorDict(columns, batch_size=len(batch.keys))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data)


def mask_rows(batch: Any, trajectories: Trajectories, masked_N: np.ndarray) -> None:
    """Take rows out of the step: no group mean, no advantage, no loss, no token counted.

    Their masks become zero, so that every mean verl takes over tokens or sequences leaves them out; their rewards
    become zero, so that a NaN does not spread; and each gets a uid of its own, so that GRPO's group statistics leave
    them out.
    """
    rows = np.flatnonzero(masked_N)
    mask, score = torch.zeros(len(rows), dtype=torch.int64), torch.zeros(len(rows))
    _put(batch, trajectories, rows, {"response_mask": mask, "loss_mask": mask, "rm_scores": score}, new_uids=True)


def clear_advantages(batch: Any, trajectories: Trajectories, cleared_N: np.ndarray) -> None:
    """Set the advantages of some rows to zero."""
    rows = np.flatnonzero(cleared_N)
    _put(batch, trajectories, rows, dict.fromkeys(("advantages", "returns"), torch.zeros(len(rows))))


def _put(
    batch: Any, trajectories: Trajectories, rows: np.ndarray, fields: Mapping[str, torch.Tensor], new_uids: bool = False
) -> None:
    """Write one value per row, repeated over its response tokens, into each of some fields: one call, or none."""
    if not len(rows):
        return
    keys, lengths = [batch.keys[row] for row in rows], trajectories.length_N[rows].tolist()
    data = TensorDict(
        {
            name: torch.nested.as_nested_tensor(
                [value.expand(length) for value, length in zip(values, lengths, strict=True)], layout=torch.jagged
            )
            for name, values in fields.items()
        },
        batch_size=len(keys),
    )
    if new_uids:
        tu.assign_non_tensor_stack(data, "uid", [f"masked{key}" for key in keys])
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=data)
