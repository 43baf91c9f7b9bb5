"""What AIR does once per step on the driver, at 10^3 to 10^6 trajectories, and the sampler, at 10^4 to 10^7 rows.

    python benchmarks/driver.py                    # about three minutes
    python benchmarks/driver.py --largest 100000   # the sampler: ten times that

Processor seconds and memory; growth must be linear: a trajectory costs at most four times as much at the largest size
as at a tenth of it (caches do not grow with the batch), and a batch of prompts at most four times, whatever the rows.
Exit status 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from verl_air.config import AirConfig
from verl_air.data.groups import build_group_index
from verl_air.data.mixing import mix
from verl_air.objective import trajectory_weights
from verl_air.training.batch import REWARD_INFO, Trajectories, auxiliary_reward, loss_weights
from verl_air.training.metrics import training_metrics
from verl_air.training.replay_buffer import whole_groups_class
from verl_air.training.sampler import MetaGroupSampler

GROUP, K = 4, 3  # prompts per intent, completions per prompt
GROWTH = 4.0  # sets and dicts outgrow the caches; a quadratic step would show 10


def synthetic(n: int) -> Trajectories:
    """n trajectories of whole meta-groups in random order, some of them abstained."""
    rng = np.random.default_rng(0)
    order_N = rng.permutation(n)
    prompt_N, group_N = order_N // K, order_N // (K * GROUP)
    anchor_N = prompt_N % GROUP == 0
    reward_N = np.where(rng.random(n) < 0.01, np.nan, rng.choice([-2.0, 0.25, 2.5], size=n))
    info = {name: np.full(n, np.nan) for name in REWARD_INFO}
    info["abstained"] = np.isnan(reward_N).astype(float)
    info["acc"] = np.where(np.isnan(reward_N), np.nan, (reward_N > 0).astype(float))
    return Trajectories(
        keys=[f"{prompt}_{row}_0" for row, prompt in enumerate(prompt_N.tolist())],
        prompt_N=prompt_N,
        group_N=group_N,
        role_N=np.where(anchor_N, "anchor", "open"),
        domain_N=np.array(["safety", "moral", "math"])[group_N % 3],
        reward_N=reward_N,
        info_N=info,
        length_N=rng.integers(1, 500, size=n),
        truncated_N=np.zeros(n, dtype=bool),
        padding_N=np.zeros(n, dtype=bool),
        final_N=np.ones(n, dtype=bool),
        session_N=np.arange(n),
    )


def weights_alone(data: Trajectories) -> Callable[[], Any]:
    """``trajectory_weights``, the contract that other code relies on."""
    reward_N, prompt_N, group_N, is_anchor_N = (
        torch.from_numpy(values) for values in (data.reward_N, data.prompt_N, data.group_N, data.is_anchor_N)
    )
    valid_N = ~reward_N.isnan()
    return lambda: trajectory_weights(reward_N, prompt_N, group_N, is_anchor_N, valid_N)


def step_on_the_driver(data: Trajectories) -> Callable[[], Any]:
    """Which groups are whole, weights, metrics: all that a step adds on the driver, but for reading the queue."""
    air = AirConfig()

    def step() -> None:
        dropped_N = data.incomplete_groups_N(GROUP, K)
        valid_N = ~data.padding_N & ~data.abstained_N & ~dropped_N
        loss_weights(data, valid_N, air)
        training_metrics(data, valid_N, 0, aux_reward_N=auxiliary_reward(data, air), weighted_N=valid_N)

    return step


def whole_groups(data: Trajectories) -> Callable[[], Any]:
    """One pass of the replay buffer over a queue with all these prompts finished."""
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    cls = whole_groups_class(ReplayBuffer)
    buffer = object.__new__(cls)
    buffer.group_size, buffer.evict_failed = GROUP, True
    prompts = np.unique(data.prompt_N)
    finished = {f"{prompt // GROUP}-{prompt % GROUP}" for prompt in prompts.tolist()}
    for name in ("pending_keys", "running_keys", "failure_keys", "finished_keys"):
        setattr(buffer, name, defaultdict(set, {"train": finished if name == "finished_keys" else set()}))
    return lambda: buffer._members("train")


def data_file(n: int) -> tuple[pa.Array, pa.Array]:
    """The columns that the index is built from, of a file of n rows: intent and role."""
    row_N = np.arange(n)
    domains = pa.array(np.array(["safety", "moral", *["math"] * 8])[row_N // GROUP % 10])
    intents = pc.binary_join_element_wise(domains, pa.array(row_N // GROUP).cast(pa.string()), "/")
    return intents, pa.array(np.where(row_N % GROUP == 0, "anchor", "open"))


def prompts_of_an_epoch(columns: tuple[pa.Array, pa.Array]) -> Callable[[], Any]:
    """Index of the data file, order of an epoch, and the first batch of prompts."""
    return lambda: take_a_batch(sampled(columns))


def sampled(columns: tuple[pa.Array, pa.Array], weights: dict[str, float] | None = None) -> Iterator[int]:
    """The rows of an epoch, in order; with weights, the rows of a mixture."""
    index = build_group_index(*columns, anchors=1, open_=GROUP - 1, source="benchmark")
    mixture = mix(weights, index, None) if weights else None
    return iter(MetaGroupSampler(index, anchors=1, open_=GROUP - 1, shuffle=True, seed=0, mixture=mixture))


def take_a_batch(rows: Iterator[int]) -> None:
    """64 meta-groups."""
    for _ in range(64 * GROUP):
        next(rows)


def one_batch(columns: tuple[pa.Array, pa.Array]) -> Callable[[], Any]:
    """A batch in the middle of an epoch."""
    rows = sampled(columns)
    take_a_batch(rows)
    return lambda: take_a_batch(rows)


def one_mixed_batch(columns: tuple[pa.Array, pa.Array]) -> Callable[[], Any]:
    """The same with ``air.domain_weights``; about as long as ``one_batch``."""
    rows = sampled(columns, {"safety": 1, "moral": 1, "math": 1})
    take_a_batch(rows)
    return lambda: take_a_batch(rows)


PARTS = {
    "trajectory_weights": weights_alone,
    "step_on_the_driver": step_on_the_driver,
    "replay_buffer": whole_groups,
    "sampler": prompts_of_an_epoch,
    "one_batch": one_batch,
    "one_mixed_batch": one_mixed_batch,
}
ROWS_OF_A_FILE = ("sampler", "one_batch", "one_mixed_batch")


def measure(part: str, n: int) -> dict[str, float]:
    """Best of three in processor seconds; peak memory of this process above what it held with the input."""
    torch.set_num_threads(1)
    run = PARTS[part](data_file(n) if part in ROWS_OF_A_FILE else synthetic(n // (K * GROUP) * K * GROUP))
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    seconds = []
    for _ in range(3):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    peak = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
    return {"s": round(min(seconds), 6), "us_each": round(1e6 * min(seconds) / n, 3), "bytes_each": round(peak / n)}


def in_child(part: str, n: int) -> dict[str, float]:
    """The same in a process of its own, whose peak is this part's."""
    command = [sys.executable, "-W", "ignore", __file__, "--part", part, str(n)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure, print JSON, and say whether growth is linear."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--largest", type=int, default=1_000_000, help="trajectories, at least 10000 (default %(default)s)"
    )
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(measure(args.part[0], int(args.part[1]))))
        return 0
    if args.largest < 10_000:
        parser.error(f"--largest {args.largest}: growth is read from two sizes, so at least 10000")
    measured: dict[str, Any] = {}
    growth: dict[str, float] = {}
    for name in PARTS:
        scale = 10 if name in ROWS_OF_A_FILE else 1
        sizes = [scale * n for n in (10**power for power in range(3, 8)) if n <= args.largest]
        measured[name] = {str(n): in_child(name, n) for n in sizes}
        what = "s" if name.endswith("_batch") else "us_each"
        *_, tenth, largest = (by_row[what] for by_row in measured[name].values())
        growth[name] = round(largest / tenth, 3)
    plain, mixed = (measured[name][str(10 * args.largest)]["s"] for name in ("one_batch", "one_mixed_batch"))
    print(json.dumps({**measured, "growth": growth, "mixed_over_plain": round(mixed / plain, 3)}, indent=2))
    for name, ratio in growth.items():
        if ratio > GROWTH:
            print(f"{name}: {ratio} times as much at the largest size as at a tenth of it", file=sys.stderr)
    return int(max(growth.values()) > GROWTH)


if __name__ == "__main__":
    raise SystemExit(main())
