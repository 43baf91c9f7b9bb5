"""Weights reach vLLM through a socket whose name is the run's own, so that two runs on one machine do not meet.

verl names it ``/tmp/rl-colocate-zmq-JOB-replica-R-rank-L.sock`` with Ray's job id, which is ``01000000`` in every new
cluster. Of two runs on one machine, the second takes the first one's socket away.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from wrapt import wrap_function_wrapper

RUN_VARIABLE = "VERL_AIR_RUN"
"""A name drawn for each run; comes with the job's environment, and vLLM's own processes inherit it."""


def name_sockets_by_run(module: ModuleType) -> None:
    """Wrap both ends in verl's ``bucketed_weight_transfer``."""
    for end in ("BucketedWeightSender", "BucketedWeightReceiver"):
        wrap_function_wrapper(module, f"{end}.__init__", _with_own_name)


def _with_own_name(wrapped: Callable[..., None], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    wrapped(*args, **kwargs)
    run, start = os.environ.get(RUN_VARIABLE), "ipc:///tmp/rl-colocate-zmq-"
    if run and instance.zmq_handle.startswith(start):
        instance.zmq_handle = f"{start}{run}-{instance.zmq_handle.removeprefix(start)}"
