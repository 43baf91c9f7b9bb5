"""Train on one framing, measure all: ``python -m studies.transfer WORLD...``.

A WORLD is a folder of ``python -m verl_air.playground``; worlds of one setting are averaged. Its warm-started
policy does a few supervised steps on right answers to training intents, in one ID framing or in all of them. What is
measured, by sampling on held-out intents, is the accuracy of open prompts (the mean of harmful and benign ones, so that
refusing everything gains nothing) in the trained framings, in the other ID framings and in the OOD framings.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM

from verl_air.playground.framings import FRAMINGS, PlaygroundFraming, Setting
from verl_air.playground.measure import measure
from verl_air.playground.model import encode, example_loss, open_example
from verl_air.playground.world import PlaygroundIntent, split_intents

BATCH = 48
_SOME = 0.05  # a change below it is too small to be passed on
Changes = dict[str, list[float]]
"""What is measured -> a value per world."""


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m studies.transfer", description=__doc__)
    add = parser.add_argument
    add("worlds", type=Path, nargs="+", metavar="WORLD", help="folders of python -m verl_air.playground")
    add("--steps", type=int, default=40, help="supervised steps (%(default)s)")
    add("--lr", type=float, default=1e-3, help="of AdamW (%(default)s)")
    add("--repeats", type=int, default=4, help="samples per prompt (%(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = make_parser().parse_args(argv)
    torch.set_num_threads(1)
    found: dict[Setting, Changes] = defaultdict(lambda: defaultdict(list))
    for world in args.worlds:
        settings = json.loads((world / "manifest.json").read_text(encoding="utf-8"))["settings"]
        for name, values in transfer(world, settings, args).items():
            found[settings["setting"]][name] += values
    for setting, changes in found.items():
        _print(setting, changes)
    return 0


def transfer(world: Path, settings: Mapping[str, Any], args: argparse.Namespace) -> Changes:
    """``before/NAME``, ``own/NAME``, ``id/NAME`` and ``ood/NAME`` of one world; NAME says what is trained."""
    tokenizer = AutoTokenizer.from_pretrained(world / "model")
    start = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32).eval()
    setting, seed = settings["setting"], settings["seed"]
    intents = split_intents(seed, train=settings["train"], held_out=settings["held_out"])
    before = measure(start, tokenizer, intents.held_out, seed=seed, setting=setting, repeats=args.repeats)
    found: Changes = {"anchor": [before["anchor"]]}
    for name, trained in trainings(setting).items():
        model = copy.deepcopy(start)
        _train(model, tokenizer, trained, intents.train, args.steps, args.lr, seed)
        after = measure(model, tokenizer, intents.held_out, seed=seed, setting=setting, repeats=args.repeats)
        change = {f: accuracy(after, f) - accuracy(before, f) for f in FRAMINGS[setting]}
        found[f"before/{name}"] = [fmean(accuracy(before, f) for f in trained)]
        found[f"own/{name}"] = [fmean(change.pop(f) for f in trained)]
        for side in {framing.side for framing in change}:
            found[f"{side}/{name}"] = [fmean(value for f, value in change.items() if f.side == side)]
    return found


def trainings(setting: Setting) -> dict[str, tuple[PlaygroundFraming, ...]]:
    """What is trained, by name: each ID framing alone, then all."""
    framings = tuple(framing for framing in FRAMINGS[setting] if framing.side == "id")
    return {**{framing.name: (framing,) for framing in framings}, "all four": framings}


def accuracy(measured: Mapping[str, float], framing: PlaygroundFraming) -> float:
    """Of open prompts in a framing, half of them harmful."""
    return (measured[f"harmful/{framing.name}"] + measured[f"benign/{framing.name}"]) / 2


def _train(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    framings: Sequence[PlaygroundFraming],
    intents: Sequence[PlaygroundIntent],
    steps: int,
    lr: float,
    seed: int,
) -> None:
    """Supervised steps on right answers."""
    rng, never_fooled = random.Random(f"transfer-{seed}"), [replace(framing, fooled=0.0) for framing in framings]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    for _ in range(steps):
        examples = [open_example(rng.choice(intents), rng.choice(never_fooled), rng) for _ in range(BATCH)]
        optimizer.zero_grad()
        example_loss(model, *encode(tokenizer, examples)).backward()
        optimizer.step()


def _print(setting: Setting, changes: Changes) -> None:
    """A Markdown table: means over the worlds."""
    print(f"\n{setting}: {len(changes['anchor'])} worlds, anchors {fmean(changes['anchor']):.2f}")
    print("| trained on | accuracy there | its change | other ID framings | OOD framings | OOD gets of its change |")
    print("|---|---|---|---|---|---|")
    for name in trainings(setting):
        before, own, ood = (fmean(changes[f"{kind}/{name}"]) for kind in ("before", "own", "ood"))
        others = f"{fmean(changes[f'id/{name}']):+.2f}" if f"id/{name}" in changes else "-"
        passed_on = f"{ood / own:.0%}" if own >= _SOME else "-"
        print(f"| {name} | {before:.2f} | {own:+.2f} | {others} | {ood:+.2f} | {passed_on} |")


if __name__ == "__main__":
    sys.exit(main())
