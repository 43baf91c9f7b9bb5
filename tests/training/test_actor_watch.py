"""A process that died ends the run that waits for it, and the reason is said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.core.generated.common_pb2 import ActorDeathCause, ActorDiedErrorContext, OomContext

from tests.conftest import ROOT
from verl_air.training.actor_watch import first_death

DIED = ActorDeathCause(
    actor_died_error_context=ActorDiedErrorContext(reason="WORKER_DIED", error_message="The process is gone.")
)
CASES: dict[str, tuple[ActorDeathCause, int, str | None]] = {
    "by Ray": (ActorDeathCause(oom_context=OomContext(error_message="0.96 of 24 GB")), 0, "killed for memory. 0.96"),
    "by the system": (DIED, 1, "the system has killed 1 process"),
    "by something else": (DIED, 0, "ActorWorker (process 7) died. The process is gone."),
    "ended by its owner": (
        ActorDeathCause(actor_died_error_context=ActorDiedErrorContext(reason="RAY_KILL")), 1, None,
    ),
    "no cause given": (ActorDeathCause(), 1, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_cause_of_a_death_is_named(case: str) -> None:
    cause, kills, expected = CASES[case]
    actor: dict[str, Any] = {"DeathCause": cause, "ActorClassName": "verl.workers.ActorWorker", "Pid": 7}
    found = first_death({"a": actor}, kills)
    assert found is None if expected is None else found and expected in found and "ActorWorker (process 7)" in found


PROGRAM = """
import os, sys, threading, time, ray
from verl_air.training import actor_watch
actor_watch.POLL_S = 0.5
actor_watch.TRAINERS_S = 1.0
actor_watch.watch_actors()
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000)

@ray.remote
class Worker:
    def work(self, signal):
        os.kill(os.getpid(), signal)
        time.sleep(600)

worker = Worker.remote()
worker.work.remote(int(sys.argv[1]))
threading.Event().wait(120)  # as verl waits for rollouts that nobody makes any more
print("nobody ended it")
"""


# Ray's own memory monitor kills the worker: any use of memory is above its limit here.
NO_MEMORY = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "200"}


@pytest.mark.slow
@pytest.mark.verl_run
@pytest.mark.parametrize(
    ("limits", "signal", "cause"),
    [(NO_MEMORY, 0, "was killed for memory"), ({}, 9, "died.")],
    ids=["for memory", "by a signal"],
)
def test_a_run_that_waits_for_the_killed_worker_ends(limits: dict[str, str], signal: int, cause: str) -> None:
    environment = {**os.environ, **limits, "PYTHONPATH": str(ROOT), "VERL_PLATFORM": "cpu"}
    command = [sys.executable, "-c", PROGRAM, str(signal)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode != 0, done.stdout
    assert re.search(rf"verl-air: Worker \(process \d+\) {cause}", done.stderr), done.stderr[-3000:]
    assert "nobody ended it" not in done.stdout
