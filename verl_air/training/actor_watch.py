"""A run that has lost a process ends, and says which, where verl would wait for that process without end.

verl starts no actor again. Runs in the driver, whose thread is free whatever the trainer waits for. A death that the
trainer notices itself ends the run with the trainer's error; for the others it is given time.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray

from verl_air.rewards.blocked_loop import LIMIT_S

POLL_S = 5.0
TRAINERS_S = 30.0
"""For the trainer, to end by itself."""
_WHERE_TO_LOOK = (
    "Its last lines in the log may say why. "
    f"`Timeout ({timedelta(seconds=LIMIT_S)})!` there is of a function that blocked its event loop: the traceback says "
    "which. Fix it and resume from the last checkpoint."
)


def first_death(actors: dict[str, dict[str, Any]], system_kills: int = 0) -> str | None:
    """The first actor in Ray's table that died and was not ended by its owner, with the cause and advice, in words.

    Args:
        actors: of ``ray._private.state.actors``, by id.
        system_kills: processes of this machine that the system has killed for memory since the run started.
    """
    for actor in actors.values():
        cause, name = actor["DeathCause"], f"{actor['ActorClassName'].split('.')[-1]} (process {actor['Pid']})"
        memory = "Use smaller micro-batches, a smaller batch or a smaller KV cache; `verl-air doctor` estimates them."
        if cause.HasField("oom_context"):
            return f"{name} was killed for memory. {cause.oom_context.error_message} {memory}"
        died = cause.actor_died_error_context
        if died.reason != died.WORKER_DIED:
            continue
        if system_kills:
            return f"{name} died; the system has killed {system_kills} process(es) for memory. {memory}"
        said = died.error_message.split(" Some common causes")[0]
        return f"{name} died. {said} {_WHERE_TO_LOOK}"
    return None


def watch_actors() -> None:
    """Start to watch, once Ray is up, and until the process ends. What the trainer died of is named at its end, too."""
    kills = _system_kills()
    threading.Thread(target=_watch, args=(kills,), name="actor-watch", daemon=True).start()
    atexit.register(_name_death, kills)  # before Ray's own, which was registered when Ray was imported


def _watch(kills_before: int) -> None:
    while not _name_death(kills_before):
        threading.Event().wait(POLL_S)
    threading.Event().wait(TRAINERS_S)
    # Ray ends what belongs to a driver that is gone. On a signal it would abort the driver, without a status.
    os._exit(1)


_named: set[str] = set()


def _name_death(kills_before: int) -> bool:
    """Print once which actor has died, if one has."""
    if not ray.is_initialized() or (death := first_death(_dead_actors(), _system_kills() - kills_before)) is None:
        return False
    if death not in _named:
        _named.add(death)
        print(f"verl-air: {' '.join(death.split())}", file=sys.stderr, flush=True)
    return True


def _dead_actors() -> dict[str, dict[str, Any]]:
    """Those of this run: other jobs may share its cluster."""
    from ray._private.state import actors

    job = ray.get_runtime_context().get_job_id()
    return {name: actor for name, actor in actors(actor_state_name="DEAD").items() if actor["JobID"] == job}


def _system_kills() -> int:
    """Processes that the kernel has killed for memory since it booted."""
    counters = Path("/proc/vmstat")
    lines = counters.read_text().splitlines() if counters.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
