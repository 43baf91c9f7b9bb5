"""A worker whose event loop is blocked ends, also if the interpreter is held; a queue of short calls does not count."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import asyncio, re, time
from verl_air.rewards import Sample, blocked_loop, compute_score, register_reward

blocked_loop.LIMIT_S, blocked_loop._BEAT_S = 2.0, 0.1

@register_reward("short", reward_range=(0.0, 1.0))
def short(sample: Sample) -> float:
    time.sleep(0.2)
    return 1.0

@register_reward("sleeps", reward_range=(0.0, 1.0))
def sleeps(sample: Sample) -> float:
    time.sleep(60.0)
    return 1.0

@register_reward("sleeps_later", reward_range=(0.0, 1.0))
async def sleeps_later(sample: Sample) -> float:
    await asyncio.sleep(0.1)
    return sleeps(sample)

@register_reward("backtracks", reward_range=(0.0, 1.0))
def backtracks(sample: Sample) -> float:
    re.match(r"(a+)+$", "a" * 64 + "b")
    return 1.0

async def main():
    row = dict(data_source="d/train", solution_str="an answer", ground_truth="")
    await compute_score(**row, routes={"*": "short"})  # imports all reward functions
    blocked_loop.end_when_blocked()
    row["routes"] = {"*": "REWARD"}
    await asyncio.gather(*(compute_score(**row) for _ in range(20)))
    await asyncio.sleep(4.0)  # a worker that has nothing to do

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reward", "status"), [("short", 0), ("sleeps", 1), ("sleeps_later", 1), ("backtracks", 1)], ids=str
)
def test_a_blocked_loop_ends_its_process(reward: str, status: int) -> None:
    command = [sys.executable, "-c", PROGRAM.replace("REWARD", reward)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert ("Timeout" in done.stderr) == (status != 0)
    assert (f"in {reward}" in done.stderr) == (status != 0)
