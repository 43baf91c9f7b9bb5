"""Train the playground's policy and measure the auxiliary term's gradient: ``python -m studies.gradient WORLD``.

WORLD is a folder of ``python -m verl_air.playground``. Per framing, over training: the share of the auxiliary term in
the gradient's norm, |aux| / (|aux| + |GRPO|), and the cosine of its angle to GRPO's gradient of that framing and of the
whole step.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from studies.gradient.playground import Playground, Step
from verl_air.objective import surrogate_loss, trajectory_weights


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m studies.gradient", description=__doc__)
    add = parser.add_argument
    add("world", type=Path, help="a folder of python -m verl_air.playground")
    add("--regularizer", default="air", help="default air")
    add("--gap", default="positive", help="signed or positive (default)")
    add("--prior", type=float, default=0.0, help="air.accuracy_prior (default 0)")
    add("--coef", type=float, default=0.02, help="default 0.02; what is trained with")
    add("--steps", type=int, default=40, help="default 40")
    add("--phases", type=int, default=4, help="lines per framing (default 4)")
    add("--lr", type=float, default=4e-4, help="default 4e-4")
    add("--seeds", type=int, nargs="+", default=[0], help="of sampling; what is printed is their mean (default 0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = make_parser().parse_args(argv)
    phases: list[dict[str, list[float]]] = [defaultdict(list) for _ in range(args.phases)]
    for seed in args.seeds:
        _train(args, seed, phases)
    _print(phases, args.steps)
    return 0


def _train(args: argparse.Namespace, seed: int, phases: Sequence[dict[str, list[float]]]) -> None:
    """One run; what each step measures is appended to its phase."""
    torch.manual_seed(seed)
    rng, world = random.Random(seed), Playground(args.world)
    parameters = list(world.policy.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0)
    for number in range(args.steps):
        step, measured = world.step(rng), phases[number * args.phases // args.steps]
        weight_N = weights(step, regularizer=args.regularizer, gap=args.gap, accuracy_prior=args.prior)
        gradients = _gradients(step, advantages(step), args.coef * weight_N, parameters)
        for name, values in compare(gradients).items():
            measured[name].append(values)
        measured["zero weights"].append(float((weight_N == 0).float().mean()))
        for framing in dict.fromkeys(step.framing_N):
            own_N = torch.tensor([name == framing for name in step.framing_N])
            measured[f"right/{framing}"].append(float((step.task_N[own_N] > 0).float().mean()))
        grpo, aux = gradients["all"]
        for parameter, chunk in zip(parameters, (grpo + aux).split([p.numel() for p in parameters]), strict=True):
            parameter.grad = chunk.view_as(parameter)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def advantages(step: Step) -> Tensor:
    """GRPO's, of the total reward."""
    reward_SK = step.reward_N.view(int(step.prompt_N.max()) + 1, -1)
    return ((reward_SK - reward_SK.mean(-1, keepdim=True)) / (reward_SK.std(-1, keepdim=True) + 1e-6)).flatten()


def weights(step: Step, **options: Any) -> Tensor:
    """The auxiliary weights, of the task reward on one scale, as the quickstart has them."""
    columns = (step.task_N, step.prompt_N, step.intent_N, step.is_anchor_N)
    return trajectory_weights(*columns, right_N=step.task_N > 0, **options)


Gradients = dict[str, tuple[Tensor, Tensor]]
"""By framing, and of ``all``: GRPO's and the auxiliary term's descent, flat, whose sum is the step's gradient."""


def _gradients(step: Step, advantage_N: Tensor, weight_N: Tensor, parameters: list[Tensor]) -> Gradients:
    N, tokens = len(step.framing_N), float(step.mask_NT.sum())
    found: Gradients = {}
    for framing in dict.fromkeys(step.framing_N):
        own_N = torch.tensor([name == framing for name in step.framing_N]).float()
        losses = (
            surrogate_loss(step.log_prob_NT, own_N * advantage_N, step.mask_NT, num_trajectories=tokens),  # token mean
            surrogate_loss(step.log_prob_NT, own_N * weight_N, step.mask_NT, num_trajectories=N),
        )
        flat = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
            for loss in losses
        ]
        found[framing] = (flat[0], flat[1])
    found["all"] = (sum(g for g, _ in found.values()), sum(a for _, a in found.values()))  # type: ignore[assignment]
    return found


def compare(gradients: Gradients) -> dict[str, float]:
    """Share of the norm and cosines, by framing. A framing without a gradient of a kind has no cosine with it."""
    found: dict[str, float] = {}
    whole = gradients["all"][0]
    for framing, (grpo, aux) in gradients.items():
        if total := float(grpo.norm() + aux.norm()):
            found[f"share/{framing}"] = float(aux.norm()) / total
        for name, other in (("own", grpo), ("step", whole)):
            if norm := float(aux.norm() * other.norm()):
                found[f"{name}/{framing}"] = float(aux @ other) / norm
    return found


def _print(phases: Sequence[dict[str, list[float]]], steps: int) -> None:
    """A Markdown table: mean over the steps of each phase."""
    print("| framing | steps | right | share of the norm | cosine to its GRPO gradient | to the step's GRPO gradient |")
    print("|---|---|---|---|---|---|")
    for framing in ("all", *(name.removeprefix("right/") for name in phases[0] if name.startswith("right/"))):
        for number, measured in enumerate(phases):
            first, last = number * steps // len(phases) + 1, (number + 1) * steps // len(phases)
            cells = (_mean(measured.get(f"{kind}/{framing}")) for kind in ("right", "share", "own", "step"))
            print(f"| {framing} | {first}-{last} | {' | '.join(cells)} |")
    zeros = ", ".join(_mean(measured["zero weights"]) for measured in phases)
    print(f"\nShare of auxiliary weights that are zero, by phase: {zeros}")


def _mean(values: list[float] | None) -> str:
    return f"{fmean(values):.2f}" if values else "-"


if __name__ == "__main__":
    sys.exit(main())
