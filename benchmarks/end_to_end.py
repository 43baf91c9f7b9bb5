"""Whole steps of ``main_ppo`` on the quickstart's world: verl's own GRPO with the same rewards, and with AIR.

    python benchmarks/end_to_end.py               # 10 pairs of runs, about an hour on two idle cores
    python benchmarks/end_to_end.py --pairs 2 --steps 10

The data are one batch, so that every step of every run has the same prompts, and the learning rate is zero, so that
what is generated has one distribution. Runs alternate, and change places from pair to pair. A pair gives a ratio of
mean seconds per step (the first two are left out), of start-up (from the command to the first step) and of peak memory
(available memory of the machine before, minus its minimum). Ratios are geometric means over pairs, with a 95 % Student
interval of their logarithms: nothing else may run.
Limits: 1.03 for the upper end of time, 1.02 for start-up and memory. Exit status 1 if one is broken.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
import pyarrow.parquet as pq
from scipy.stats import t as student

from tests.runs.launch import NO_VALIDATION, main_ppo
from verl_air.playground.build import PlaygroundConfig, build_playground

INTENTS, ANCHORS, OPEN = 12, 1, 3  # a batch of the quickstart
WARM_UP = 2
LIMITS = {"step": 1.03, "start_up": 1.02, "memory": 1.02}  # of the upper end for a step, of the ratio for the others
METHODS = {
    "stock": ("~air", "trainer.v1.trainer_mode=sync"),
    "air": (),
}


class Watch(threading.Thread):
    """Peak memory of the machine above its start, and the time at which the first step's metrics were written."""

    def __init__(self, metrics: Path) -> None:
        super().__init__(daemon=True)
        self.metrics, self.peak, self.first, self.ended = metrics, 0, math.nan, threading.Event()
        self.started, self.before = time.monotonic(), psutil.virtual_memory().available

    def run(self) -> None:
        while not self.ended.wait(0.1):
            self.peak = max(self.peak, self.before - psutil.virtual_memory().available)
            if math.isnan(self.first) and self.metrics.is_file() and self.metrics.stat().st_size:
                self.first = time.monotonic() - self.started


def measure(method: str, folder: Path, world: Path, batch: str, steps: int) -> dict[str, Any]:
    """One run: seconds of start-up and per step, mean seconds of each phase of a step, peak memory in MiB."""
    watch = Watch(folder / "metrics.jsonl")
    watch.start()
    run = main_ppo(
        folder,
        world,
        f"data.train_files=[{batch}]",
        f"trainer.total_training_steps={steps}",
        "trainer.total_epochs=1000",
        "trainer.save_freq=-1",
        "actor_rollout_ref.actor.optim.lr=0.0",
        *NO_VALIDATION,
        *METHODS[method],
    )
    watch.ended.set()
    watch.join()
    metrics = run.metrics()
    assert sorted(metrics) == list(range(1, steps + 1)), f"steps {sorted(metrics)}, not 1 to {steps}: {folder}"
    measured = [metrics[step] for step in range(1 + WARM_UP, steps + 1)]
    phases = sorted(name for name in measured[0] if name.startswith("timing_s/"))
    return {
        "step": fmean(step["timing_s/step"] for step in measured),
        "start_up": watch.first - metrics[1]["timing_s/step"],
        "memory": watch.peak / 2**20,
        "phases": {name.removeprefix("timing_s/"): fmean(step[name] for step in measured) for name in phases},
        "response_length": fmean(step["response_length/mean"] for step in measured),
    }


def one_batch(rows: Path, out: Path) -> str:
    """Write the rows of one batch of whole meta-groups; returns the file."""
    table = pq.read_table(rows)
    room: dict[str, dict[str, int]] = {}
    taken = []
    for info in table.column("extra_info").to_pylist():
        if info["intent_id"] not in room and len(room) < INTENTS:
            room[info["intent_id"]] = {"anchor": ANCHORS, "open": OPEN}
        left = room.get(info["intent_id"], {})
        taken.append(left.get(info["role"], 0) > 0)
        if taken[-1]:
            left[info["role"]] -= 1
    assert sum(taken) == INTENTS * (ANCHORS + OPEN)
    pq.write_table(table.filter(taken), out)
    return str(out)


def interval(ratios: Sequence[float]) -> dict[str, float]:
    """Geometric mean of ratios, and the ends of its 95 % Student interval."""
    logs = [math.log(ratio) for ratio in ratios]
    half = student.ppf(0.975, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    ends = {"ratio": fmean(logs), "low": fmean(logs) - half, "high": fmean(logs) + half}
    return {name: round(math.exp(value), 4) for name, value in ends.items()}


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Ratios of AIR to stock, and what was measured of both."""
    result: dict[str, Any] = {
        name: interval([air[name] / stock[name] for air, stock in zip(runs["air"], runs["stock"], strict=True)])
        for name in LIMITS
    }
    for method, measured in runs.items():
        result[method] = {name: round(fmean(run[name] for run in measured), 3) for name in (*LIMITS, "response_length")}
        phases = sorted({name for run in measured for name in run["phases"]})
        result[method]["phases"] = {
            name: round(fmean(run["phases"].get(name, 0.0) for run in measured), 3) for name in phases
        }
    return result


def main() -> int:
    """Measure, print JSON, and say whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30, help="of each run (%(default)s)")
    parser.add_argument("--world", type=Path, help="a playground that is built already")
    args = parser.parse_args()
    if args.pairs < 1 or args.steps <= WARM_UP:
        parser.error(f"--pairs is at least 1, and --steps at least {WARM_UP + 1}: the first {WARM_UP} are left out")
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as scratch:
        world = args.world or Path(scratch) / "playground"
        build_playground(world, PlaygroundConfig(), progress=sys.stderr)
        batch = one_batch(world / "train.parquet", Path(scratch) / "batch.parquet")
        for pair in range(args.pairs):
            for method in list(METHODS)[:: 1 if pair % 2 else -1]:
                runs[method].append(
                    measure(method, Path(scratch) / f"{method}-{pair}", world.absolute(), batch, args.steps)
                )
                print(
                    f"{method} {pair}: load {os.getloadavg()[0]:.1f}, {runs[method][-1]}", file=sys.stderr, flush=True
                )
    measured = summary(runs)
    print(json.dumps(measured, indent=2))
    broken = 0
    for name, limit in LIMITS.items():
        value = measured[name]["high" if name == "step" else "ratio"]
        if not value <= limit:
            print(f"{name}: AIR is {value} of stock (limit {limit})", file=sys.stderr)
            broken = 1
    return broken


if __name__ == "__main__":
    raise SystemExit(main())
