"""The same without Ray and vLLM, in minutes: ``python -m studies.judge_faults.toy WORLD --fault keywords ...``.

GRPO with AIR in plain PyTorch (:mod:`studies.gradient.playground`), not ``main_ppo``. WORLD is a folder of ``python -m
verl_air.playground``; its own judge gets the fault.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch

from studies.gradient.__main__ import advantages, weights
from studies.gradient.playground import Playground
from studies.judge_faults.__main__ import parted_at
from studies.judge_faults.rewards import FAULTS, applies
from verl_air.data.schema import DataRow
from verl_air.objective import surrogate_loss
from verl_air.playground.language import stance_of
from verl_air.rewards import Sample


class FaultyPlayground(Playground):
    """A world whose judge has a fault, and the shares of open responses that it and the oracle call right, by step."""

    def __init__(self, world: Path, fault: argparse.Namespace) -> None:
        super().__init__(world)
        self.fault = fault
        self.proxy: dict[int, float] = {}
        self.oracle: dict[int, float] = {}

    def _right(self, rows: list[DataRow], answers: list[str | None]) -> list[bool]:
        right, fault = super()._right(rows, answers), self.fault
        opens = [n for n, row in enumerate(rows) if row["extra_info"]["role"] == "open"]
        truth = {n: rows[n]["reward_model"]["ground_truth"] for n in opens}
        for n in opens:
            answer = answers[n]
            sample = Sample("", answer, answer is not None, truth[n], rows[n]["data_source"], rows[n]["extra_info"])
            if answer is not None:
                right[n] |= applies(sample, answer, fault.fault, fault.words, fault.characters, fault.strength)
        step = len(self.proxy) + 1
        self.proxy[step] = fmean(right[n] for n in opens)
        self.oracle[step] = fmean(stance_of(answers[n] or "") == truth[n] for n in opens)
        return right


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m studies.judge_faults.toy", description=__doc__)
    add = parser.add_argument
    add("world", type=Path, help="a folder of python -m verl_air.playground")
    add("--fault", choices=FAULTS, required=True)
    add("--words", nargs="+", default=[], help="of keywords and topic")
    add("--characters", type=int, default=0, help="of length")
    add("--strength", type=float, nargs="+", default=[1.0], help="one run for each (default 1)")
    add("--steps", type=int, default=30, help="%(default)s")
    add("--lr", type=float, default=8e-4, help="%(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = make_parser().parse_args(argv)
    print("| strength | passed, first to last 3 steps | right | part at step |\n|---|---|---|---|")
    for strength in args.strength:
        world = FaultyPlayground(args.world, argparse.Namespace(**{**vars(args), "strength": strength}))
        _train(world, args.steps, args.lr)
        ends = [
            f"{fmean(list(s.values())[:3]):.2f} to {fmean(list(s.values())[-3:]):.2f}"
            for s in (world.proxy, world.oracle)
        ]
        print(
            f"| {strength:g} | {' | '.join(ends)} | {parted_at(world.proxy, world.oracle, 0.15) or 'never'} |",
            flush=True,
        )
    return 0


def _train(world: FaultyPlayground, steps: int, lr: float) -> None:
    torch.manual_seed(0)
    rng, optimizer = random.Random(0), torch.optim.AdamW(world.policy.parameters(), lr=lr, weight_decay=0.0)
    for _ in range(steps):
        step = world.step(rng)
        tokens, N = float(step.mask_NT.sum()), len(step.framing_N)
        grpo = surrogate_loss(step.log_prob_NT, advantages(step), step.mask_NT, num_trajectories=tokens)
        weight_N = 0.02 * weights(step, regularizer="air", gap="positive")
        aux = surrogate_loss(step.log_prob_NT, weight_N, step.mask_NT, num_trajectories=N)
        optimizer.zero_grad()
        (grpo + aux).backward()
        torch.nn.utils.clip_grad_norm_(world.policy.parameters(), 1.0)
        optimizer.step()


if __name__ == "__main__":
    sys.exit(main())
