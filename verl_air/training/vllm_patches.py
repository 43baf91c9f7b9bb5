"""Two faults between verl and vLLM, patched from outside; only in a run of ours.

verl names the socket through which weights reach vLLM ``/tmp/rl-colocate-zmq-JOB-replica-R-rank-L.sock`` with Ray's job
id, which is ``01000000`` in every new cluster: of two runs on one machine, the second takes the first one's socket
away. Ours carries a name of the run's own.

verl's server lives on when vLLM's engine has died, and who sends it weights waits for the engine without end. Ours ends
with its engine, so that Ray tells everybody who depends on it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from functools import wraps
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


def end_servers_with_engines(module: ModuleType) -> None:
    """Wrap the server's start in verl's ``vllm_async_server``.

    By a plain function under the name of verl's: Ray pickles an actor's methods, those that have a name by it alone,
    and of wrapt's wrappers what they wrap.
    """
    start = module.vLLMHttpServer.run_server

    @wraps(start)
    async def run_server(server: Any, *args: Any, **kwargs: Any) -> None:
        await start(server, *args, **kwargs)
        if os.environ.get(RUN_VARIABLE):
            server.engine_watch = asyncio.create_task(_end_with(server.engine))

    module.vLLMHttpServer.run_server = run_server


async def _end_with(engine: Any) -> None:
    while not engine.errored:
        await asyncio.sleep(1.0)
    print("verl-air: vLLM's engine has died, and its server ends with it", file=sys.stderr, flush=True)
    os._exit(1)
