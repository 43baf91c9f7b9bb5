"""Rollouts from a real model with real vLLM, in the format that runs store; resumed after any interruption."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from verl_air.cpu.environment import DEFAULTS, VLLM_DEFAULTS
from verl_air.evaluation import accuracy_of, read_records
from verl_air.evaluation.rollout_store import generated_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPEC = """
import sys
from pathlib import Path
from verl_air.evaluation.generate import generate_rollouts
from verl_air.evaluation.scoring import merge_reward_kwargs
from verl_air.evaluation.vllm_generator import SamplingSettings, VllmGenerator

def main():
    folder, out, die_after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    rewards = merge_reward_kwargs(
        {}, routes=["playground/anchor=multiple_choice", "playground/open=playground_oracle"],
        modules=["verl_air.playground.rewards"],
    )
    def progress(done, total):
        print(done, total, flush=True)
        if 0 < die_after <= done:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
    files = [folder / "few.parquet"]
    generate_rollouts(folder / "model", files, out, rewards, SamplingSettings(max_tokens=16, seed=3),
                      generator=lambda: VllmGenerator(folder / "model", on_cpu=True, max_num_batched_tokens=128),
                      n=2, progress=progress)

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def folder(playground_files: Path) -> Path:
    """The playground with a file of three intents, five prompts each."""
    table = pq.read_table(playground_files / "id.parquet")
    ids = [info["intent_id"] for info in table.column("extra_info").to_pylist()]
    chosen = list(dict.fromkeys(ids))[:3]
    pq.write_table(table.filter([name in chosen for name in ids]), playground_files / "few.parquet")
    return playground_files


def run(log: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, whose group is gone when this returns: vLLM's engine is a child."""
    with log.open("w") as lines:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=lines, stderr=lines, start_new_session=True,
            env={**os.environ, **DEFAULTS, **VLLM_DEFAULTS, "VERL_PLATFORM": "cpu"},
        )  # fmt: skip
        try:
            status = process.wait(400)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, status, log.read_text(errors="replace"))


def generate(folder: Path, out: Path, die_after: int = 0) -> subprocess.CompletedProcess[str]:
    """With prompts that do not fit into one forward pass."""
    return run(out.with_suffix(f".{die_after}.log"), "-c", SPEC, str(folder), str(out), str(die_after))


def evaluate(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The same from the command line; how long a response may be, and how it is scored, is in the recipe."""
    recipe = ("--recipe", "recipes/quickstart.yaml", "--n", "2", "--seed", "3", "--out", str(out))
    data = ("--model", str(folder / "model"), "--data", str(folder / "few.parquet"))
    return run(out.with_suffix(".log"), "-m", "verl_air", "evaluate", *data, *recipe)


def test_a_benchmark_before_and_after_training(folder: Path, tmp_path: Path) -> None:
    """The commands of the documentation, with the same untrained model twice and seeds of their own."""
    questions, run_folder = tmp_path / "words.jsonl", tmp_path / "run"
    questions.write_text("".join(json.dumps({"question": f"write {z}", "answer": "draw"}) + "\n" for z in range(4)))
    for step in (0, 40):
        out = run_folder / "capability" / f"{step}.jsonl"
        asked = (
            "--model",
            str(folder / "model"),
            "--capability",
            f"words:exact_match={questions}",
            "--seed",
            str(step),
        )
        limits = ("--recipe", "recipes/quickstart.yaml", "--n", "2", "--out", str(out))
        done = run(tmp_path / f"{step}.log", "-m", "verl_air", "evaluate", *asked, *limits)
        assert done.returncode == 0, done.stdout[-3000:]
        assert "words/capability" in done.stdout
        assert len(out.read_text().splitlines()) == 8
    numbers = tmp_path / "report.json"
    written = ("--out", str(tmp_path / "report.html"), "--json", str(numbers))
    assert run(tmp_path / "report.log", "-m", "verl_air", "report", str(run_folder), *written).returncode == 0
    (change,) = json.loads(numbers.read_text())["runs"][0]["capability"]
    assert (change["domain"], change["intents"], change["incomplete"]) == ("words", 4, 0)
    assert "Capability: general benchmarks" in (tmp_path / "report.html").read_text()


def test_an_interrupted_evaluation_ends_as_one_that_was_not(folder: Path, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole.jsonl", tmp_path / "parted.jsonl"
    done = evaluate(folder, whole)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "playground/id" in done.stdout
    progress = done.stdout.split(str(whole))[0].replace("\r", "\n").split("\n")
    first, *between, last = (line for line in progress if line.strip())
    assert first.startswith("0 of 30 rollouts, ")
    assert last.startswith("30 of 30 rollouts, "), "only lines of its own reach the terminal"
    assert all(" of 30 rollouts, " in line for line in between)
    assert done.stdout.splitlines()[-1].startswith("In brackets: 95% intervals")
    killed = generate(folder, parted, die_after=10)
    assert killed.returncode == -signal.SIGKILL, killed.stdout[-3000:]
    scored, texts = (len(path.read_text().splitlines()) for path in (parted, generated_file(parted)))
    assert 10 <= scored <= texts < 30, "it was killed while it generated"
    with parted.open("a") as file:  # a death in the middle of a row
        file.write('{"input": "user draw the pis')
    done = generate(folder, parted)
    assert done.returncode == 0, done.stdout[-3000:]
    assert parted.read_bytes() == whole.read_bytes()

    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert len({row["uid"] for row in rows}) == len(rows) == 30
    assert len({row["output"] for row in rows}) > 20, "completions of one prompt have seeds of their own"
    assert all(row["score"] is not None and row["step"] == 0 for row in rows)
    stored = accuracy_of(read_records(whole))
    assert (stored.completions, stored.intents) == (30, 3)

    started = time.monotonic()
    again = evaluate(folder, whole)
    assert "30 of 30 rollouts" in again.stdout
    assert "vllm" not in again.stdout.lower(), f"an engine was started for nothing ({time.monotonic() - started:.0f} s)"
