"""verl's agent loop, with a note for the trainer of why a rollout failed.

verl's worker logs what a session raised, marks the prompt as failed, and the cause is lost. Ours first puts a note of
it into TransferQueue, into a partition of its own. The replay buffer lists all partitions at each poll, so the trainer
reads it in every mode, during validation, and while it waits (:mod:`verl_air.training.failures`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
import transfer_queue as tq
from ray.exceptions import ActorDiedError, RayTaskError
from verl.trainer.ppo.v1 import AgentLoopManagerTQ, AgentLoopWorkerTQ

from verl_air.rewards.blocked_loop import end_when_blocked, note_progress
from verl_air.training.failures import NOTES
from verl_air.training.rows import as_dict

MANAGER = f"{__name__}.NotingAgentLoopManager"
"""For ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``."""

_MESSAGE_LIMIT = 4000
# Ray wraps the class, and what it wraps cannot be subclassed.
_Worker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class.__ray_actor_class__


def note_of(error: BaseException, row: Mapping[str, Any], *, validate: bool) -> dict[str, Any]:
    """What the trainer is told of an exception.

    Args:
        error: as the session raised it; Ray's wrapping is taken off.
        row: the prompt's columns, of which ``extra_info`` and ``data_source`` name it.
        validate: whether it is a prompt of validation.
    """
    cause = error.cause if isinstance(error, RayTaskError) else error
    info = as_dict(row.get("extra_info"))
    return {
        "kind": type(cause).__name__,
        "message": str(cause)[:_MESSAGE_LIMIT],
        "died": isinstance(error, ActorDiedError),  # verl starts no actor again
        "validate": validate,
        "intent": f"{info.get('domain', '')}/{info.get('intent_id', '?')}",
        "row": f"row {info.get('index', '?')} (intent {info.get('intent_id', '?')}) of {str(row.get('data_source'))!r}",
    }


class NotingAgentLoopWorker(_Worker):
    """Runs sessions as verl does, and notes what each raised."""

    # Ray pickles a constructor; verl's, which is no attribute of a module, would arrive with a class of its own.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        end_when_blocked()

    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **row: Any) -> Any:
        note_progress()
        try:
            return await super()._run_agent_loop(sampling_params, trajectory=trajectory, **row)
        except Exception as error:
            note = note_of(error, row, validate=bool(trajectory["validate"]))
            await tq.async_kv_put(key=f"{row['uid']}_{row['session_id']}", partition_id=NOTES, tag=note)
            raise


class NotingAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager, with workers that note failures."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(NotingAgentLoopWorker)
