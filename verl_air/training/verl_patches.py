"""Faults of the installed verl that get in the way of a documented setting, patched from outside.

``hybrid_engine: false`` (:func:`let_logger_flush`), and a reward model on the policy's GPUs with a reward function of
the recipe (:func:`rows_for_rewards`). Each has a contract test that fails once verl has fixed it; then the patch goes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import transfer_queue as tq
from ray.exceptions import RayTaskError
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from verl_air.errors import AirError
from verl_air.training.rows import as_dict

ROW_FIELDS = ("data_source", "reward_model", "extra_info", "num_turns", "extra_fields")
"""What a reward manager reads of a row besides its text; all but the first two may be missing."""

_MANAGERS_NAMES = {"num_turns": "__num_turns__", "extra_fields": "tool_extra_fields"}


class _AcceptsFlush(logging.LoggerAdapter):
    """A logger that can be called like ``print``."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        kwargs.pop("flush", None)
        return msg, kwargs


def let_logger_flush(module: Any) -> None:
    """``trainer_separate_async._setup`` calls ``logger.info(..., flush=True)``, which a logger does not take."""
    if not isinstance(module.logger, _AcceptsFlush):
        module.logger = _AcceptsFlush(module.logger, {})


@contextmanager
def rows_for_rewards(trainer: Any, batch: Any) -> Iterator[None]:
    """Within it, the trainer's reward loop is given the rows of ``batch``.

    Where the reward model shares the policy's devices, verl scores a batch in the trainer and not in the agent loop
    (``PPOTrainer._compute_reward_colocate``). It passes on prompts and responses alone, so every reward function fails
    with ``KeyError: 'data_source'``, and it stores what the function returns where its own validation does not look.
    """
    manager = trainer.reward_loop_manager
    trainer.reward_loop_manager = _RowAwareRewardLoop(manager, batch)
    try:
        yield
    finally:
        trainer.reward_loop_manager = manager


class _RowAwareRewardLoop:
    """verl's ``RewardLoopManager`` for one batch: rows go in with their data, rewards come out as the agent loop's do.

    Everything but ``compute_rm_score`` is the manager's own.
    """

    def __init__(self, manager: Any, batch: Any) -> None:
        self._manager = manager
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def compute_rm_score(self, data: Any) -> Any:
        """Score the rows of the batch; ``data`` holds their text in the order of the batch's keys."""
        keys, partition = self._batch.keys, self._batch.partition_id
        rows = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=list(ROW_FIELDS))
        columns = {
            name: [getattr(item, "data", item) for item in list(rows[name])] for name in ROW_FIELDS if name in rows
        }
        for name, values in columns.items():
            data.non_tensor_batch[_MANAGERS_NAMES.get(name, name)] = _objects(values)
        try:
            output = self._manager.compute_rm_score(data)
        except RayTaskError as error:
            if isinstance(error.cause, AirError):
                raise error.cause from error  # its own message, not a worker's traceback
            raise

        # As the agent loop does it: what the function returned becomes one entry of the row's extra_fields.
        names = output.meta_info.pop("reward_extra_keys", [])
        extra_fields = [as_dict(item) for item in columns.get("extra_fields") or [{}] * len(keys)]
        for row, fields in enumerate(extra_fields):
            fields["reward_extra_info"] = {name: _plain(output.non_tensor_batch[name][row]) for name in names}
        update = TensorDict({}, batch_size=len(keys))
        tu.assign_non_tensor_stack(update, "extra_fields", extra_fields)
        tq.kv_batch_put(keys=keys, partition_id=partition, fields=update)
        return output


def _objects(values: list[Any]) -> np.ndarray:
    """An array of Python objects; numpy would take lists apart."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
