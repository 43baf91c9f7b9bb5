"""What the runs of test_faults.py share: sound settings, a fault after a step, and what their stored rows must be."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import ROOT
from tests.runs import faulty_rewards
from tests.runs.judge_stand_in import WORDS
from tests.runs.launch import KWARGS, NO_JUDGE, NO_VALIDATION, SMALL, Process, Run, main_ppo, wait_for_step
from verl_air.rewards import compute_score

LIMIT_S = 120.0
"""From a fault to the end of the run."""

COMMON = (*SMALL, *NO_JUDGE, *NO_VALIDATION, "++air.check_judge=False", "trainer.resume_mode=auto")
SOUND = {"playground/anchor": "multiple_choice", "playground/open/train": "by_its_letters"}
MODULES = ["verl_air.playground.rewards", faulty_rewards.__name__]


def scored_by(reward: str, **options: Any) -> tuple[str, ...]:
    """A reward for open rows, with its options."""
    routes = ",".join(f"{pattern}:{name}" for pattern, name in (SOUND | {"playground/open/train": reward}).items())
    return (
        *COMMON,
        f"{KWARGS}.modules=[{','.join(MODULES)}]",
        f"++{KWARGS}.routes={{{routes}}}",
        *(f"++{KWARGS}.options.{reward}.{name}={value}" for name, value in options.items()),
    )


def steps(count: int, save_every: int = -1) -> tuple[str, ...]:
    return f"trainer.total_training_steps={count}", f"trainer.save_freq={save_every}"


class Fault:
    """What happens to a run after a step. From then on the run has two minutes to end by itself."""

    def __init__(self, folder: Path, inject: Callable[[Process], None], after_step: int = 1) -> None:
        self._folder, self._inject, self._after_step = folder, inject, after_step
        self._began = math.nan

    def __call__(self, process: Process) -> None:
        wait_for_step(self._folder, self._after_step, process)
        self.began_now()
        self._inject(process)
        process.wait(LIMIT_S + 60)

    def began_now(self) -> None:
        self._began = time.monotonic()

    def assert_ended(self, run: Run) -> None:
        """With a status of its own, after sound steps only."""
        seconds = time.monotonic() - self._began
        print(f"{seconds:.0f} s from the fault to status {run.status}")
        assert seconds < LIMIT_S
        assert run.status > 0, "no signal that we sent"
        assert_sound(run)


def ends(folder: Path, playground: Path, inject: Callable[[Process], None], *options: str, after_step: int = 1) -> Run:
    """A run that must end because of a fault."""
    fault = Fault(folder, inject, after_step)
    run = main_ppo(folder, playground, *options, fails=True, meanwhile=fault)
    fault.assert_ended(run)
    return run


def assert_sound(run: Run) -> None:
    """Every step, also one whose metrics are lost, was trained on whole groups with rewards of a sound function."""
    logged, stored = sorted(run.metrics()), sorted(int(file.stem) for file in run.folder.glob("rollouts/*.jsonl"))
    assert logged == list(range(1, len(logged) + 1))
    assert stored in (logged, [*logged, len(logged) + 1])
    for step in stored:
        run.assert_whole_groups(step)
        for row in run.rollouts(step):
            if row["abstained"]:
                assert math.isnan(row["task_reward"])
                assert row["air_weight"] == 0.0
            else:
                assert row["task_reward"] == sound_reward(row), row


def sound_reward(row: dict[str, Any]) -> float:
    source = f"{row['domain']}/{row['split']}"
    info = {name: row[name] for name in ("index", "intent_id", "role", "domain", "split", "extras")}
    score = compute_score(source, row["output"], row["gts"], info, routes=SOUND, modules=MODULES)
    return asyncio.run(score)["task_reward"]


def part_of(process: Process, name: str) -> psutil.Process:
    """A process of the run, by what it calls itself."""
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if name in " ".join(child.cmdline()):
                return child
    raise AssertionError(f"the run has no process named {name}")


class StandIn:
    """A judge that the test kills, starts and sets the mood of."""

    def __init__(self, mood: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._mood = mood
        self.answer("well")
        self.start()

    def answer(self, mood: str) -> None:
        self._mood.write_text(mood)

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.runs.judge_stand_in", str(self.port), str(self._mood)]
        self._process = subprocess.Popen(command, cwd=ROOT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def asked(self, **settings: Any) -> tuple[str, ...]:
        """A recipe whose open rows are judged by it."""
        settings = {"base_url": f"http://127.0.0.1:{self.port}/v1", **settings}
        judge = [f"++{KWARGS}.judge.{name}={value}" for name, value in settings.items()]
        return (*scored_by("verdict_judge", template="'{response}'", positive=WORDS[0], negative=WORDS[1]), *judge)
