"""``verl-air evaluate PATH...``: accuracy and group accuracy from stored rollouts, with intervals.

A PATH is a JSONL file that a run stored, or a run's folder: its last validation is taken. ``--compare A B`` pairs two
of them by intent. ``--model`` generates rollouts from a checkpoint first, ``--rejudge`` has stored ones judged again;
both write ``--out``, and go on with it where they stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verl_air.errors import ConfigError
from verl_air.evaluation import Met, Record, breakdown, compare, read_records
from verl_air.evaluation.checkpoints import model_folder
from verl_air.evaluation.generation import Engine, Sampling
from verl_air.evaluation.intervals import LEVEL
from verl_air.evaluation.making import generate_rollouts, rejudge_rollouts
from verl_air.evaluation.run_folder import read_run_folder
from verl_air.evaluation.scoring import RecipeSettings, merge_reward_kwargs, read_recipe_settings
from verl_air.evaluation.text_table import format_comparisons, format_sections

_SAMPLING = Sampling()


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("evaluate", help="accuracy of rollouts, stored or new", description=__doc__)
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="JSONL files or run folders; each gets a table of its own")
    add("--compare", nargs=2, metavar=("A", "B"), help="two of them, paired by intent: B - A")
    add("--train", nargs="+", default=[], metavar="FILE", help="training files, to tell new intents from new framings")
    add("--level", type=float, default=LEVEL, help=f"coverage of the intervals (default {LEVEL})")
    add("--json", type=Path, metavar="FILE", help="write the numbers as well")
    _add_making(parser)
    parser.set_defaults(func=run)


def _add_making(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("new rollouts").add_argument
    add("--model", metavar="DIR", help="generate from this model: a Hugging Face folder, a checkpoint, a run's folder")
    add("--data", nargs="+", default=[], metavar="FILE", help="parquet files to generate on")
    add("--rejudge", metavar="PATH", help="judge these stored rollouts again")
    add("--out", type=Path, metavar="FILE", help="JSONL file to write, and to go on with if it is there")
    add("--n", type=int, default=1, help="completions a prompt (default 1)")
    add("--temperature", type=float, default=_SAMPLING.temperature, help="(default %(default)s)")
    add("--top-p", type=float, default=_SAMPLING.top_p, help="(default %(default)s)")
    add(
        "--max-tokens",
        type=int,
        help=f"of a response (default: the recipe's data.max_response_length, else {_SAMPLING.max_tokens})",
    )
    add("--max-model-len", type=int, metavar="N", help="longest prompt with response, in tokens (default: the model's)")
    add("--tensor-parallel", type=int, default=1, metavar="N", help="GPUs that share the model (default 1)")
    add("--seed", type=int, default=_SAMPLING.seed, help="of the sampling (default %(default)s)")
    scoring = parser.add_argument_group("how new rollouts are scored").add_argument
    scoring("--recipe", metavar="PATH", help="a recipe, a run's folder, or a YAML file with routes")
    scoring("--route", nargs="+", default=[], metavar="DOMAIN/ROLE=NAME", help="added to the recipe's, or instead")
    scoring("--module", nargs="+", default=[], metavar="MODULE", help="modules that register rewards of yours")
    scoring("--judge", nargs="+", default=[], metavar="KEY=VALUE", help="such as base_url=http://localhost:8000/v1")


def run(args: argparse.Namespace) -> int:
    """Make what is to be made, then print the tables.

    Raises:
        ConfigError: the options make no sense.
        DataError: a file cannot be read, or ``--out`` was begun with other settings.
    """
    if not 0 < args.level < 1:
        raise ConfigError(f"--level {args.level:g}: must be between 0 and 1, for example 0.95")
    paths = [*args.paths, *([str(_make(args))] if args.model or args.rejudge else [])]
    if not paths and not args.compare:
        raise ConfigError("give a JSONL file or a run's folder, --compare A B, --model, or --rejudge")
    train = Met.from_files(args.train) if args.train else None
    numbers: dict[str, Any] = {"level": args.level, "evaluations": [], "comparisons": []}
    for path in paths:
        title, records, met = _read(path, train)
        sections = breakdown(records, met, args.level)
        print(f"{title}\n\n{format_sections(sections)}\n")
        numbers["evaluations"].append({"path": title, "sections": [asdict(section) for section in sections]})
    if args.compare:
        _compare(args.compare, args.level, numbers)
    print(
        f"In brackets: {args.level:.0%} intervals. Group accuracy: Wilson over intents; accuracy and differences: "
        "bootstrap over intents."
    )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return 0


def _make(args: argparse.Namespace) -> Path:
    """Generate, or judge again; returns the file."""
    if args.model and args.rejudge:
        raise ConfigError("--model generates new rollouts, --rejudge takes stored ones: name one")
    if args.out is None:
        raise ConfigError("name the file to write with --out")
    if not args.recipe and not args.route:
        raise ConfigError("say how to score: --recipe PATH, or --route DOMAIN/ROLE=NAME")
    recipe = read_recipe_settings(args.recipe) if args.recipe else RecipeSettings({}, None)
    rewards = merge_reward_kwargs(recipe.reward_kwargs, routes=args.route, modules=args.module, judge=args.judge)
    if args.rejudge:
        source = Path(args.rejudge)
        if source.is_dir():
            folder = read_run_folder(source)
            source = folder.validations[folder.last_validation()[0]]
        return rejudge_rollouts(source, args.out, rewards, progress=_progress)
    if not args.data:
        raise ConfigError("name the parquet files to generate on with --data")
    max_tokens = args.max_tokens if args.max_tokens is not None else recipe.max_response_length
    max_tokens = _SAMPLING.max_tokens if max_tokens is None else max_tokens
    for name, value in (("--n", args.n), ("--max-tokens", max_tokens)):
        if value < 1:
            raise ConfigError(f"{name} {value}: must be at least 1")
    model = model_folder(args.model)
    return generate_rollouts(
        model,
        args.data,
        args.out,
        rewards,
        Sampling(args.temperature, args.top_p, max_tokens, args.seed),
        engine=lambda: Engine(model, args.max_model_len, tensor_parallel_size=args.tensor_parallel),
        n=args.n,
        progress=_progress,
    )


def _progress(done: int, total: int) -> None:
    print(f"{done} of {total} rollouts", file=sys.stderr, flush=True)


def _compare(paths: Sequence[str], level: float, numbers: dict[str, Any]) -> None:
    (title_a, a, _), (title_b, b, _) = (_read(path, None) for path in paths)
    comparisons = compare(a, b, level)
    print(f"A: {title_a}\nB: {title_b}\n\n{format_comparisons(comparisons)}\n")
    numbers["comparisons"] = [{"a": title_a, "b": title_b, **asdict(c)} for c in comparisons]


def _read(path: str, train: Met | None) -> tuple[str, list[Record], Met | None]:
    """Title, records, and what training met, if that can be known."""
    if not Path(path).is_dir():
        return path, read_records(path), train
    folder = read_run_folder(path)
    step, records = folder.last_validation()
    return str(folder.validations[step]), records, train or folder.met(records)
