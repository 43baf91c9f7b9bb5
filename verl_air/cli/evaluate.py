"""``verl-air evaluate PATH...``: accuracy and group accuracy from stored rollouts, with intervals.

A PATH is a JSONL file that a run stored, or a run's folder: its last validation is taken. `--compare A B` pairs two
of them by intent. `--model` generates rollouts from a checkpoint first, `--rejudge` has stored ones judged again;
both write `--out`, and resume it where they stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from verl_air.cli.terminal import of_other_packages
from verl_air.errors import ConfigError
from verl_air.evaluation.breakdown import breakdown
from verl_air.evaluation.capability import CapabilityBenchmark
from verl_air.evaluation.checkpoints import model_folder
from verl_air.evaluation.comparison import compare
from verl_air.evaluation.generate import Progress, generate_rollouts, rejudge_rollouts
from verl_air.evaluation.records import read_records
from verl_air.evaluation.run_folder import read_run_folder
from verl_air.evaluation.scoring import EvaluationSettings, merge_reward_kwargs, read_evaluation_settings
from verl_air.evaluation.statistics import LEVEL
from verl_air.evaluation.tables import format_comparisons, format_sections
from verl_air.evaluation.vllm_generator import SamplingSettings, VllmGenerator
from verl_air.files import write_atomically

EVERY_SECONDS = 5.0
"""Between two updates of the progress."""

_SAMPLING = SamplingSettings()


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("evaluate", help="accuracy of rollouts, stored or new", description=__doc__)
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="JSONL files or run folders; each gets a table of its own")
    add("--compare", nargs=2, metavar=("A", "B"), help="two of them, paired by intent: B - A")
    add("--json", type=Path, metavar="FILE", help="also write the numbers")
    new = parser.add_argument_group("new rollouts").add_argument
    new("--model", metavar="DIR", help="generate from this model: a Hugging Face folder, a checkpoint, a run's folder")
    new("--checkpoint", default="last", metavar="WHICH", help="of a run's folder: best, last, or a step (default last)")
    new("--data", nargs="+", default=[], metavar="FILE", help="parquet files to generate on")
    benchmark = (
        "questions to generate on, each with an answer that the rule checks, such as gsm8k:math=gsm8k/test.jsonl"
    )
    new("--capability", nargs="+", default=[], metavar="NAME:RULE=FILE", help=benchmark)
    new("--rejudge", metavar="PATH", help="judge these stored rollouts again")
    new("--out", type=Path, metavar="FILE", help="JSONL file to write; resumed if it is there")
    new("--n", type=int, default=1, help="completions per prompt (default 1)")
    new("--temperature", type=float, default=_SAMPLING.temperature, help="(default %(default)s)")
    new("--top-p", type=float, default=_SAMPLING.top_p, help="(default %(default)s)")
    default = f"the recipe's data.max_response_length, else {_SAMPLING.max_tokens}"
    new("--max-tokens", type=int, help=f"of a response (default: {default})")
    new("--max-model-len", type=int, metavar="N", help="longest prompt with response, in tokens (default: the model's)")
    new("--tensor-parallel", type=int, default=1, metavar="N", help="GPUs that share the model (default 1)")
    new("--seed", type=int, default=_SAMPLING.seed, help="of the sampling (default %(default)s)")
    scoring = parser.add_argument_group("how new rollouts are scored").add_argument
    scoring("--recipe", metavar="PATH", help="a recipe, a run's folder, or a YAML file with routes")
    scoring("--route", nargs="+", default=[], metavar="DOMAIN/ROLE=NAME", help="added to the recipe's, or instead")
    scoring("--module", nargs="+", default=[], metavar="MODULE", help="modules that register rewards of yours")
    scoring("--judge", nargs="+", default=[], metavar="KEY=VALUE", help="such as base_url=http://localhost:8000/v1")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Make new rollouts if asked to, then print the tables.

    Raises:
        ConfigError: the options make no sense.
        DataError: a file cannot be read, or ``--out`` was started with other settings.
    """
    files = [*map(_file, args.paths), *([_make(args)] if args.model or args.rejudge else [])]
    if not files and not args.compare:
        raise ConfigError("give a JSONL file or a run's folder, --compare A B, --model, or --rejudge")
    numbers: dict[str, Any] = {"level": LEVEL, "evaluations": [], "comparisons": []}
    for file in files:
        sections = breakdown(read_records(file))
        print(f"{file}\n\n{format_sections(sections)}\n")
        numbers["evaluations"].append({"path": str(file), "sections": [asdict(section) for section in sections]})
    if args.compare:
        a, b = map(_file, args.compare)
        comparisons = compare(read_records(a), read_records(b))
        print(f"A: {a}\nB: {b}\n\n{format_comparisons(comparisons)}\n")
        numbers["comparisons"] = [{"a": str(a), "b": str(b), **asdict(c)} for c in comparisons]
    print(
        f"In brackets: {LEVEL:.0%} intervals. Group accuracy: Wilson over intents; accuracy and differences: "
        "bootstrap over intents."
    )
    if args.json:
        write_atomically(args.json, json.dumps(numbers, indent=2) + "\n")
    return 0


def _file(path: str) -> Path:
    """A file of rollouts itself; of a run's folder, its last whole validation."""
    if not Path(path).is_dir():
        return Path(path)
    folder = read_run_folder(path)
    return folder.validations[folder.last_validation()[0]]


def _make(args: argparse.Namespace) -> Path:
    """Generate, or judge again; returns the file."""
    if args.model and args.rejudge:
        raise ConfigError("--model generates new rollouts, --rejudge takes stored ones: name one")
    if args.out is None:
        raise ConfigError("name the file to write with --out")
    benchmarks = [*map(CapabilityBenchmark.parse, args.capability)]
    routes = [*(benchmark.route for benchmark in benchmarks), *args.route]
    if not args.recipe and not routes:
        raise ConfigError("say how to score: --recipe PATH, or --route DOMAIN/ROLE=NAME")
    recipe = read_evaluation_settings(args.recipe) if args.recipe else EvaluationSettings({})
    rewards = merge_reward_kwargs(recipe.reward_kwargs, routes=routes, modules=args.module, judge=args.judge)
    if args.rejudge:
        with shown_progress(sys.stderr) as progress, of_other_packages():
            return rejudge_rollouts(_file(args.rejudge), args.out, rewards, progress=progress)
    if bool(args.data) == bool(benchmarks):
        raise ConfigError("name what to generate on: parquet files with --data, or questions with --capability")
    if len({benchmark.name for benchmark in benchmarks}) < len(benchmarks):
        raise ConfigError("--capability: give each benchmark a name of its own")
    given = (args.max_tokens, recipe.max_response_length, _SAMPLING.max_tokens)
    max_tokens = next(value for value in given if value is not None)
    for name, value in (("--n", args.n), ("--max-tokens", max_tokens)):
        if value < 1:
            raise ConfigError(f"{name} {value}: must be at least 1")
    model = model_folder(args.model, args.checkpoint)
    sampling = SamplingSettings(args.temperature, args.top_p, max_tokens, args.seed)
    with shown_progress(sys.stderr) as progress, of_other_packages():
        return generate_rollouts(
            model, args.data, args.out, rewards, sampling,
            generator=partial(vllm_generator, model, args.max_model_len, args.tensor_parallel),
            benchmarks=benchmarks, n=args.n, progress=progress,
        )  # fmt: skip


def vllm_generator(model: Path, max_model_len: int | None, tensor_parallel: int) -> VllmGenerator:
    """With vLLM's CPU back end on a machine without a GPU."""
    import torch

    from verl_air.cpu.environment import VLLM_DEFAULTS, set_defaults

    on_cpu = os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu" or not torch.cuda.is_available()
    if on_cpu:
        # Nothing else computes: the engine may have all cores, of which the defaults give each process one.
        os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
        set_defaults()
        for name, value in VLLM_DEFAULTS.items():
            os.environ.setdefault(name, value)
    return VllmGenerator(model, max_model_len, on_cpu=on_cpu, tensor_parallel_size=tensor_parallel)


@contextmanager
def shown_progress(terminal: TextIO) -> Iterator[Progress]:
    """Shows rows scored, rows per second and the time left; nothing before the first row count is known."""
    form = "{n_fmt} of {total_fmt} rollouts, {rate_fmt}, {remaining} left"
    every = {"mininterval": EVERY_SECONDS, "maxinterval": EVERY_SECONDS, "smoothing": 0}
    bar: Any = None
    with ExitStack() as stack:

        def show(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                started = tqdm(total=total, initial=done, file=terminal, unit=" rows", bar_format=form, **every)
                bar = stack.enter_context(started)
            bar.update(done - bar.n)

        yield show
