"""A run whose worker was killed for memory ends, and says so, where verl would wait for that worker without end.

Runs in the driver, whose thread is free while ``ray.get`` waits for the trainer. A death for memory is told apart by
Ray's own account of it, or by the system's count of processes that it has killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import ray

POLL_S = 5.0
GRACE_S = 60.0
"""To leave: main_ppo takes its Ray cluster down on SIGTERM."""


def killed_for_memory(actors: dict[str, dict[str, Any]], system_kills: int = 0) -> str | None:
    """The first worker in Ray's table of actors that was killed for memory, in words.

    Args:
        actors: of ``ray._private.state.actors``, by id.
        system_kills: processes of this machine that the system has killed for memory since the run started.
    """
    for actor in actors.values():
        cause = actor["DeathCause"]
        name = actor["ActorClassName"].split(".")[-1]
        if cause.HasField("oom_context"):
            return f"{name} (process {actor['Pid']}) was killed for memory. {cause.oom_context.error_message}"
        died = cause.actor_died_error_context
        if system_kills and died.reason == died.WORKER_DIED:
            return f"{name} (process {actor['Pid']}) died; the system has killed {system_kills} process(es) for memory."
    return None


def watch_memory() -> None:
    """Start to watch, once Ray is up, and until the process ends."""
    threading.Thread(target=_watch, args=(_system_kills(),), name="memory-watch", daemon=True).start()


def _watch(kills_before: int) -> None:
    from ray._private.state import actors

    while True:
        threading.Event().wait(POLL_S)
        if not ray.is_initialized():
            continue
        fault = killed_for_memory(actors(actor_state_name="DEAD"), _system_kills() - kills_before)
        if fault:
            advice = (
                "Use smaller micro-batches, a smaller batch or a smaller KV cache; `verl-air doctor` estimates them."
            )
            print(f"verl-air: {' '.join(fault.split())} {advice}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(GRACE_S)
            os._exit(1)


def _system_kills() -> int:
    """Processes that the kernel has killed for memory since it booted."""
    counters = Path("/proc/vmstat")
    lines = counters.read_text().splitlines() if counters.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
