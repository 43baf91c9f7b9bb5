"""The supervisor with real processes: statuses, signals, a lost node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from verl_air.cluster import supervise as module
from verl_air.cluster.supervise import NODE_LOST, supervise
from verl_air.errors import ConfigError


def run(code: str, lost=list, **options) -> tuple[int, list[str]]:
    said: list[str] = []
    command = [sys.executable, "-c", code]
    return supervise(command, environment=os.environ, lost=lost, tell=said.append, **options), said


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


def test_an_unreachable_head_is_told_in_bounded_time() -> None:
    from verl_air.cluster.nodes import connect

    with pytest.raises(ConfigError, match=r"no Ray head answers at 127\.0\.0\.1:9 after 1 s"):
        connect("127.0.0.1:9", timeout=1)
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        connect("localhost", timeout=1)


def test_launch_without_an_address(playground_files: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from tests.conftest import RECIPES
    from verl_air.cli import main

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    recipe = ["launch", "--config-dir", str(RECIPES), "--config-name", "quickstart", f"playground={playground_files}"]
    assert main(recipe) == 2
    assert (
        "ray_kwargs.ray_init.num_cpus=16: the nodes of a running cluster say what they have" in capsys.readouterr().err
    )
    joins = [f"ray_kwargs.ray_init.{key}=null" for key in ("num_cpus", "num_gpus", "object_store_memory")]
    assert main([*recipe, *joins]) == 2
    assert "no address: give --address HOST:PORT or set RAY_ADDRESS" in capsys.readouterr().err
    assert main([*recipe, *joins, "trainer.nnodes=3", "data.train_batch_size=32"]) == 2
    assert "do not divide among the 3 data-parallel ranks" not in capsys.readouterr().err  # 96 / 3
    assert main([*recipe, *joins, "trainer.nnodes=5"]) == 2
    assert "trajectories do not divide among the 5 data-parallel ranks" in capsys.readouterr().err


def test_the_doctors_json_has_versions_and_checks(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from verl_air.cli import main

    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["versions"]["verl"] == "0.9.1"
    assert {check["name"] for check in report["checks"]} >= {"versions", "plugin", "device", "rewards"}
    broken = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "verl_air", "doctor", "--json"],
        env={**os.environ, "VERL_PLATFORM": "", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert broken.returncode == 1
    assert "device" in [c["name"] for c in json.loads(broken.stdout.splitlines()[-1])["checks"] if not c["ok"]]
