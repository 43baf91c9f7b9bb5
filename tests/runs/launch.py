"""Start the real ``python -m verl.trainer.main_ppo`` and read what it leaves; settings that several runs share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.conftest import ROOT
from verl_air.compose import hydra_arguments

TIMEOUT = 1200
KWARGS = "reward.custom_reward_function.reward_kwargs"

SMALL = (
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=24",
)
"""Two meta-groups per step."""

NO_VALIDATION = ("trainer.test_freq=-1", "trainer.val_before_train=False")

NO_JUDGE = ("reward.reward_model.enable=False", "reward.reward_model.enable_resource_pool=False")
ORACLE = (
    *NO_JUDGE,
    f"{KWARGS}.routes={{playground/anchor:multiple_choice,playground/open:playground_oracle,"
    "playground/open/train:playground_oracle}",
)
"""No judge server: the oracle scores training too."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    status: int
    log: str

    def metrics(self) -> dict[int, dict[str, Any]]:
        """All metrics by step."""
        return {entry["step"]: entry["data"] for entry in read_jsonl(self.folder / "metrics.jsonl")}

    def rollouts(self, step: int) -> list[dict[str, Any]]:
        """What was generated and trained on in a step."""
        return read_jsonl(self.folder / "rollouts" / f"{step}.jsonl")

    def validation(self, step: int) -> list[dict[str, Any]]:
        """What was generated in the validation after a step."""
        return read_jsonl(self.folder / "validation" / f"{step}.jsonl")

    def prompts(self, step: int) -> list[tuple[str, str, str]]:
        """Intent, framing and text of a step's prompts, sorted: verl reorders a batch by length."""
        return sorted({(row["intent_id"], row["context"], row["input"]) for row in self.rollouts(step)})

    def assert_whole_groups(self, step: int) -> None:
        """A step was trained on two complete meta-groups, three completions per prompt."""
        groups: dict[str, Counter[str]] = defaultdict(Counter)
        for row in self.rollouts(step):
            groups[row["uid"].split("-")[0]][row["role"]] += 1
        assert len(groups) == 2
        assert all(roles == {"anchor": 3, "open": 9} for roles in groups.values())


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def first_intents(file: Path, folder: Path, count: int) -> str:
    """Write the rows of a file's first intents into a folder; returns the new file's path."""
    table = pq.read_table(file)
    ids = [info["intent_id"] for info in table.column("extra_info").to_pylist()]
    chosen = list(dict.fromkeys(ids))[:count]
    pq.write_table(table.filter([name in chosen for name in ids]), folder / file.name)
    return str(folder / file.name)


Process = subprocess.Popen[bytes]


def main_ppo(
    folder: Path,
    playground: Path,
    *overrides: str,
    kill_in_step: int | None = None,
    fails: bool = False,
    meanwhile: Callable[[Process], None] = lambda process: None,
) -> Run:
    """Run the quickstart recipe to its end; everything it started is gone when this returns.

    ``kill_in_step`` ends it with SIGKILL, as the system would, a moment after that step has begun, and otherwise the
    status must be 0, or with ``fails`` another. ``meanwhile`` is called with the process once it has been started.
    """
    command = [sys.executable, "-u", "-W", "ignore", "-m", "verl.trainer.main_ppo"]
    command += hydra_arguments("quickstart", config_dir=ROOT / "recipes")
    # Judges of these runs are random or hardly trained, and verdict words would lack mass.
    command += [f"run_dir={folder}", f"playground={playground}", f"++{KWARGS}.judge.min_mass=0.0", *overrides]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1", "RAY_DEDUP_LOGS": "0"}
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "train.log"
    with log.open("w") as out:  # a file, not a pipe: a checkpoint writer that outlives its parent would hold the pipe
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        try:
            if kill_in_step is not None:
                wait_for_step(folder, kill_in_step - 1, process)
                os.killpg(process.pid, signal.SIGKILL)
            meanwhile(process)
            status = process.wait(TIMEOUT)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    text = log.read_text(errors="replace")
    assert kill_in_step is not None or fails == (status != 0), text[-4000:]
    return Run(folder, status, text)


def wait_for_step(folder: Path, step: int, process: Process) -> None:
    """Return a moment after a step's metrics were written, when the next one is under way."""
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + TIMEOUT
    while not (metrics.is_file() and f'"step":{step},' in metrics.read_text()):
        assert process.poll() is None, f"the run ended before step {step}: {(folder / 'train.log').read_text()[-4000:]}"
        assert time.monotonic() < deadline, f"no step {step} after {TIMEOUT} s"
        time.sleep(0.05)
    time.sleep(0.5)
