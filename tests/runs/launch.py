"""Start the real ``python -m verl.trainer.main_ppo`` and read what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

TIMEOUT = 1200


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    status: int
    log: str

    def metrics(self) -> dict[int, dict[str, Any]]:
        """All metrics by step."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return {entry["step"]: entry["data"] for entry in map(json.loads, lines)}

    def rollouts(self, step: int) -> list[dict[str, Any]]:
        """What was generated and trained on in a step."""
        return [json.loads(line) for line in (self.folder / "rollouts" / f"{step}.jsonl").read_text().splitlines()]

    def prompts(self, step: int) -> list[tuple[str, str, str]]:
        """Intent, framing and text of a step's prompts, sorted: verl reorders a batch by length."""
        return sorted({(row["intent_id"], row["context"], row["input"]) for row in self.rollouts(step)})


def main_ppo(
    folder: Path, playground: Path, *overrides: str, recipe: str = "quickstart", kill_in_step: int | None = None
) -> Run:
    """Run a recipe to its end; everything it started is gone when this returns.

    ``kill_in_step`` ends it with SIGKILL, as the system would, a moment after that step has begun.
    """
    command = [sys.executable, "-u", "-W", "ignore", "-m", "verl.trainer.main_ppo"]
    command += ["--config-dir", str(ROOT / "recipes"), "--config-name", recipe]
    command += [f"run_dir={folder}", f"playground={playground}", *overrides]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1", "RAY_DEDUP_LOGS": "0"}
    environment["VERL_FILE_LOGGER_PATH"] = str(folder / "metrics.jsonl")
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "train.log"
    with log.open("w") as out:  # a file, not a pipe: a checkpoint writer that outlives its parent would hold the pipe
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        try:
            if kill_in_step is not None:
                wait_for_step(folder, kill_in_step - 1, process)
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait(TIMEOUT)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return Run(folder, status, log.read_text(errors="replace"))


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Return a moment after a step's metrics were written, when the next one is under way."""
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + TIMEOUT
    while not (metrics.is_file() and f'"step":{step},' in metrics.read_text()):
        assert process.poll() is None, f"the run ended before step {step}: {(folder / 'train.log').read_text()[-4000:]}"
        assert time.monotonic() < deadline, f"no step {step} after {TIMEOUT} s"
        time.sleep(0.05)
    time.sleep(0.5)
