"""Two real Ray nodes on this machine, through the plain-Ray script: a training over both, a lost node, and resuming."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.exhaustive, pytest.mark.slow, pytest.mark.verl_run, pytest.mark.timeout(2400)]

SCRIPT = ROOT / "scripts" / "cluster" / "plain_ray.sh"
REWARD = "reward.custom_reward_function.reward_kwargs"
# The quickstart on two ranks with one GPU's worth each, small, and with an oracle for a judge.
RECIPE = (
    "trainer.nnodes=2",
    "trainer.n_gpus_per_node=1",
    "ray_kwargs.ray_init.num_gpus=null",
    "ray_kwargs.ray_init.num_cpus=null",
    "ray_kwargs.ray_init.object_store_memory=null",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=12",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=12",
    "reward.reward_model.enable=False",
    "reward.reward_model.enable_resource_pool=False",
    f"{REWARD}.routes={{playground/anchor:multiple_choice,playground/open/train:playground_oracle}}",
    "trainer.val_before_train=False",
    "trainer.test_freq=-1",
    "trainer.save_freq=1",
    "trainer.resume_mode=auto",
)
NOTICED_WITHIN = 150.0  # seconds: what Ray needs, the grace of the supervisor, and a busy machine


@dataclass(frozen=True)
class Cluster:
    """The script, running."""

    process: subprocess.Popen[bytes]
    folder: Path
    temp_dir: Path
    log: Path

    def wait_for_checkpoint(self, step: int, timeout: float = 900) -> None:
        marker, deadline = self.folder / "checkpoints" / "latest_checkpointed_iteration.txt", time.monotonic() + timeout
        while not marker.is_file() or int(marker.read_text() or 0) < step:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, f"no checkpoint of step {step}"
            time.sleep(0.5)

    def processes(self) -> list[psutil.Process]:
        """What belongs to its Ray nodes: they name the temporary folder on their command lines."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.temp_dir) in word for word in process.info["cmdline"] or ()):
                found.append(process)
        return found


def start(folder: Path, playground: Path, temp_dir: Path, steps: int) -> Cluster:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--workers local --address 127.0.0.1 --port {port} --gpus 1 --cpus 8 --timeout 300".split()
    options += ["--temp-dir", temp_dir, "--logs", folder / "logs"]
    training = ["quickstart", f"run_dir={folder}", f"playground={playground}", *RECIPE]
    command = [
        str(word) for word in ("bash", SCRIPT, *options, "--", *training, f"trainer.total_training_steps={steps}")
    ]
    variables = {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    folder.mkdir(exist_ok=True)
    log = folder / f"script-{steps}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **variables}, stdout=out, stderr=out, start_new_session=True
        )
    return Cluster(process, folder, temp_dir, log)


def finish(cluster: Cluster, timeout: float) -> int:
    """Wait for the end; the script must leave nothing running, and whatever happens, this does not."""
    try:
        status = cluster.process.wait(timeout)
        assert cluster.processes() == []
        return status
    finally:
        if cluster.process.poll() is None:
            cluster.process.send_signal(signal.SIGTERM)
            try:
                cluster.process.wait(120)
            except subprocess.TimeoutExpired:
                os.killpg(cluster.process.pid, signal.SIGKILL)
        for process in cluster.processes():
            process.kill()


@pytest.fixture
def temp_dir() -> Iterator[Path]:
    """Ray's sockets want a short path."""
    folder = Path(tempfile.mkdtemp(prefix="va-", dir="/tmp"))
    yield folder / "ray"
    shutil.rmtree(folder, ignore_errors=True)


def test_a_lost_node_is_reported_and_the_same_command_resumes(
    playground_files: Path, tmp_path: Path, temp_dir: Path
) -> None:
    folder = tmp_path / "run"
    cluster = start(folder, playground_files, temp_dir, steps=60)
    try:
        cluster.wait_for_checkpoint(2)
        (raylet,) = [
            p for p in cluster.processes() if p.name() == "raylet" and f"{temp_dir}-1/" in " ".join(p.cmdline())
        ]
        raylet.kill()
        killed = time.monotonic()
        status = cluster.process.wait(NOTICED_WITHIN)
    finally:
        finish(cluster, timeout=1)
    log = cluster.log.read_text(errors="replace")
    assert status == 75, log[-4000:]
    assert time.monotonic() - killed < NOTICED_WITHIN
    assert "doctor: no fault on 2 node(s); versions, variables and folders equal" in log
    assert re.search(r"verl-air launch: lost during the training: .*id [0-9a-f]{6}", log)
    assert "the same command resumes from the last checkpoint" in log
    assert {"head.ray.log", "local-1.ray.log", "head.ray-session"} <= {
        path.name for path in (folder / "logs").iterdir()
    }

    saved = int((folder / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    cluster = start(folder, playground_files, temp_dir, steps=saved + 2)
    status = finish(cluster, timeout=1200)
    assert status == 0, cluster.log.read_text(errors="replace")[-4000:]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, saved + 3)), "each step once, of both starts"
    assert all(line["data"]["air/groups/complete"] == 2 for line in lines)
    for rank in (0, 1):  # both ranks wrote their shard
        assert (
            folder / "checkpoints" / f"global_step_{saved + 2}" / "actor" / f"model_world_size_2_rank_{rank}.pt"
        ).is_file()
