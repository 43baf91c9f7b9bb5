"""The supervisor with real processes: statuses, signals, a lost node."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from verl_air.cluster import supervise as module
from verl_air.cluster.supervise import NODE_LOST, supervise


def run(code: str, lost=list, **options) -> tuple[int, list[str]]:
    said: list[str] = []
    command = [sys.executable, "-c", code]
    return supervise(command, environment=os.environ, lost=lost, report=said.append, **options), said


@pytest.fixture(autouse=True)
def _ray_notices_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOTICE_S", 0.0)


@pytest.mark.parametrize("status", [0, 1, 7])
def test_the_status_is_passed_on(status: int) -> None:
    assert run(f"raise SystemExit({status})")[0] == status


def test_a_command_that_is_killed() -> None:
    assert run("import os; os.kill(os.getpid(), 9)")[0] == 128 + 9


def test_a_lost_node_ends_a_run_that_hangs_and_all_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    parent = f"""
import subprocess, time
child = subprocess.Popen(["sleep", "600"])
open({str(pid_file)!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    status, said = run(parent, lambda: ["node2 (10.0.0.2)"] if pid_file.exists() else [], every=0.2)
    assert status == NODE_LOST
    assert "node2 (10.0.0.2)" in said[-1]
    pid = int(pid_file.read_text())
    time.sleep(0.2)
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_run_that_fails_because_a_node_is_lost() -> None:
    assert run("raise SystemExit(1)", lambda: ["node2"])[0] == NODE_LOST


def test_a_signal_is_passed_on_and_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    status, said = run("import time; time.sleep(600)")
    assert status == 128 + signal.SIGTERM
    assert "SIGTERM received" in said[0]
    assert signal.getsignal(signal.SIGTERM) is before
