"""A worker that was killed for memory ends the run, and the reason is said."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.core.generated.common_pb2 import ActorDeathCause, ActorDiedErrorContext, OomContext

from tests.conftest import ROOT
from verl_air.training.memory_watch import killed_for_memory

DIED = ActorDeathCause(actor_died_error_context=ActorDiedErrorContext(reason="WORKER_DIED"))
CASES: dict[str, tuple[ActorDeathCause, int, str | None]] = {
    "by Ray": (ActorDeathCause(oom_context=OomContext(error_message="0.96 of 24 GB")), 0, "killed for memory. 0.96"),
    "by the system": (DIED, 1, "the system has killed 1 process"),
    "died of something else": (DIED, 0, None),
    "ended by its owner": (
        ActorDeathCause(actor_died_error_context=ActorDiedErrorContext(reason="RAY_KILL")), 1, None,
    ),
    "no cause given": (ActorDeathCause(), 1, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_deaths_for_memory_are_told_from_others(case: str) -> None:
    cause, kills, expected = CASES[case]
    actor: dict[str, Any] = {"DeathCause": cause, "ActorClassName": "verl.workers.ActorWorker", "Pid": 7}
    found = killed_for_memory({"a": actor}, kills)
    assert found is None if expected is None else found and expected in found and "ActorWorker (process 7)" in found


PROGRAM = """
import threading, time, ray
from verl_air.training import memory_watch
memory_watch.POLL_S = 0.5
memory_watch.watch_memory()
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000)

@ray.remote
class Hoarder:
    def hold(self):
        time.sleep(600)

hoarder = Hoarder.remote()
hoarder.hold.remote()
threading.Event().wait(120)  # as verl waits for rollouts that nobody makes any more
print("nobody ended it")
"""


@pytest.mark.slow
@pytest.mark.verl_run
def test_a_run_that_waits_for_the_killed_worker_ends() -> None:
    """Ray's own memory monitor kills the worker: any use of memory is above its limit here."""
    limits = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "200"}
    environment = {**os.environ, **limits, "PYTHONPATH": str(ROOT), "VERL_PLATFORM": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode != 0, done.stdout
    assert "verl-air: Hoarder (process" in done.stderr, done.stderr[-3000:]
    assert "was killed for memory" in done.stderr
    assert "nobody ended it" not in done.stdout
