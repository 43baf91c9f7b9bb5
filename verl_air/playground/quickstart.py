"""``make quickstart``: make the world and the model, train with AIR through verl's ``main_ppo``, show the result."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from verl_air.compose import hydra_arguments
from verl_air.errors import AirError
from verl_air.evaluation import ScoredRollout, accuracy_of, read_records
from verl_air.playground.build import PlaygroundConfig, build_playground
from verl_air.playground.framings import FRAMINGS
from verl_air.playground.measure import shortfalls

# What main_ppo prints, and what it means to somebody who waits.
STAGES = (
    ("Started a local Ray instance", "Ray is up; loading verl"),
    ("actor and ref model engine initialized", "policy ready (FSDP2); starting the judge (vLLM)"),
    ("reward loop manager initialized", "judge ready; starting the rollout engine (vLLM)"),
    ("all initialize finished", "rollout engine ready; accuracy before training"),
    ("Initial validation metrics", "training"),
)
STEP = re.compile(r"step:(\d+) - ")
SHOWN = {"gap": "air/gap/mean", "anchors": "air/anchor_acc", "variants": "air/open_acc", "s": "timing_s/step"}

CONTENTS = {
    "checkpoints/config.yaml": "the resolved recipe; run.json next to it: versions and commit",
    "checkpoints/global_step_*": "the trained policy, optimizer and data order",
    "metrics.jsonl": "every metric of every step",
    "rollouts/STEP.jsonl": "what was generated, its rewards and its AIR weight",
    "validation/STEP.jsonl": "the same for held-out intents, before and after",
    "train.log": "all output of verl, Ray and vLLM",
}

# Row of the table -> (role, harmful, complete meta-groups?); None takes all.
ROWS: dict[str, tuple[str | None, bool | None, bool]] = {
    "anchors right": ("anchor", None, False),
    "open variants right": ("open", None, False),
    "  of harmful intents (refused)": ("open", True, False),
    "  of benign intents (helped)": ("open", False, False),
    "intents right in every prompt": (None, None, True),
}


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m verl_air.playground.quickstart", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="the run's folder")
    parser.add_argument("--recipe", default="quickstart", help="a recipe's name or file (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the world and its model (%(default)s)")
    parser.add_argument("--setting", choices=FRAMINGS, default="plain", help="of the framings (%(default)s)")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as trainer.total_training_steps=10")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run it all; returns main_ppo's exit status."""
    args = make_parser().parse_args(argv)
    try:
        return _run(args.out, args.recipe, PlaygroundConfig(seed=args.seed, setting=args.setting), args.overrides)
    except AirError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1


def _run(out: Path, recipe: str, world: PlaygroundConfig, overrides: Sequence[str]) -> int:
    started, log = time.time(), out / "train.log"
    hydra_arguments(recipe)  # fails now if there is no such recipe
    print("verl-air quickstart: a small world, made here (about 90 s the first time)", flush=True)
    manifest = build_playground(out / "playground", world, progress=sys.stdout)
    if short := shortfalls(manifest["measured"]):
        # The same seed gives other weights on another kind of processor, so this cannot be ruled out beforehand.
        print(f"quickstart: the warm start did not succeed: {'; '.join(short)}.", file=sys.stderr)
        print(f"Try another: python -m verl_air.playground.quickstart --seed {world.seed + 1}", file=sys.stderr)
        return 1
    print(f"\ntraining with AIR through verl's main_ppo; all its output is in {log}", flush=True)
    status = train(out, recipe, overrides)
    if status != 0:
        return status
    print(f"\n{before_and_after(out / 'validation')}")
    print(f"\n{time.time() - started:.0f} s in all. The run's folder is {out}:")
    for name, what in CONTENTS.items():
        print(f"  {name:<28}{what}")
    return 0


def train(out: Path, recipe: str, overrides: Sequence[str]) -> int:
    """Start ``python -m verl.trainer.main_ppo`` and show its progress; returns its exit status.

    Raises:
        ConfigError: there is no such recipe.
    """
    command = [sys.executable, "-u", "-W", "ignore", "-m", "verl.trainer.main_ppo", *hydra_arguments(recipe)]
    command += [f"run_dir={out}", *overrides]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1", "RAY_DEDUP_LOGS": "0"}
    for stale in (*out.glob("validation/*.jsonl"), *out.glob("rollouts/*.jsonl")):
        stale.unlink()
    started = time.time()
    with (out / "train.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log.write(line)
                if shown := _progress(line):
                    print(f"  {time.time() - started:5.0f} s  {shown}", flush=True)
        except KeyboardInterrupt:
            process.terminate()  # main_ppo takes its Ray cluster down with it
        status = process.wait()
    if status != 0:
        print(f"\nmain_ppo stopped with status {status}. The end of {log.name}:", file=sys.stderr)
        print("\n".join(Path(log.name).read_text().splitlines()[-15:]), file=sys.stderr)
    return status


def _progress(line: str) -> str | None:
    for text, meaning in STAGES:
        if text in line:
            return meaning
    if step := STEP.search(line):
        values = {name: re.search(rf"{metric}:([-\d.e]+)", line) for name, metric in SHOWN.items()}
        numbers = ", ".join(f"{name} {float(found[1]):.2f}" for name, found in values.items() if found)
        return f"step {step[1]:>3}   {numbers}" if numbers else None  # step 0 is the validation before training
    return None


def before_and_after(folder: Path) -> str:
    """The table: first against last validation, by split and kind of prompt.

    Raises:
        DataError: a stored validation cannot be read.
    """
    steps = sorted(int(file.stem) for file in folder.glob("*.jsonl"))
    if not steps:
        return "no validation was stored (trainer.test_freq, trainer.val_before_train)"
    first, last = steps[0], steps[-1]
    validations = [read_records(folder / f"{step}.jsonl") for step in (first, last)]
    lines = [f"{'held-out intents':<40}{f'step {first}':>9}{f'step {last}':>9}"]
    for split, title in (("id", "framings seen in training"), ("ood", "framings never seen")):
        lines.append(f"{split.upper()}: {title}")
        for name, picked in ROWS.items():
            lines.append(f"  {name:<38}" + "".join(f"{_cell(records, split, *picked):>9}" for records in validations))
    return "\n".join(lines)


def _cell(records: list[ScoredRollout], split: str, role: str | None, harmful: bool | None, groups: bool) -> str:
    accuracy = accuracy_of(
        record
        for record in records
        if record.split == split
        and role in (None, record.role)
        and harmful in (None, (record.extras or {}).get("harmful"))
    )
    value = accuracy.groups if groups else accuracy.prompts
    return "-" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    raise SystemExit(main())
