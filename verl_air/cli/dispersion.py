"""``verl-air dispersion MODEL... --data FILE...``: how far apart a model's hidden states lie within meta-groups.

With several models the others are held against the first, paired by meta-group.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verl_air.data.schema import Message, read_rows
from verl_air.evaluation.checkpoints import model_folder
from verl_air.evaluation.dispersion import Dispersion, dispersion_of, mean_with_interval, paired_difference
from verl_air.evaluation.hidden_states import prompt_states
from verl_air.evaluation.statistics import Estimate
from verl_air.evaluation.tables import visible

Prompts = dict[str, tuple[list[list[Message]], list[str]]]
"""By ``domain/split``: prompts, and the meta-group of each."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("dispersion", help="spread of hidden states within meta-groups", description=__doc__)
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="Hugging Face folders, checkpoints of verl's, or run folders")
    add("--data", nargs="+", required=True, metavar="FILE", help="parquet files")
    add("--layer", type=int, default=-1, help="0 is the embedding, -1 (default) the last, after the final norm")
    add("--batch-size", type=int, default=16, help="prompts a forward pass (default 16)")
    add("--dtype", default="float32", help="type to compute in (default float32)")
    add("--json", type=Path, metavar="FILE", help="write the numbers as well")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print absolute and relative dispersion of each model on each ``domain/split``.

    Raises:
        ConfigError, DataError: a model or a file cannot be used.
    """
    by_source = _prompts(args.data)
    numbers: list[dict[str, Any]] = []
    first: dict[str, Dispersion] = {}
    for name in args.models:
        folder = model_folder(name)
        print(visible(str(folder)))
        for source, (prompts, groups) in by_source.items():
            states = prompt_states(
                folder, prompts, layer=args.layer, batch_size=max(1, args.batch_size), dtype=args.dtype
            )
            found = dispersion_of(states, groups)
            entry: dict[str, Any] = {"model": str(folder), "source": source, "layer": args.layer}
            for kind, values in (("absolute", found.absolute_Z), ("relative", found.relative_Z)):
                estimate = mean_with_interval(values)
                entry[kind] = asdict(estimate)
                line = f"  {visible(source)}, {kind}: {_interval(estimate)}, {estimate.n} meta-groups"
                if source in first:
                    difference = paired_difference(first[source], found, kind == "relative")
                    entry[f"{kind} minus first"] = asdict(difference)
                    line += f"; minus the first model's: {_interval(difference, '+')}"
                print(line)
            numbers.append(entry)
            first.setdefault(source, found)
    print(
        "Mean distance of hidden states from their meta-group's centroid; relative: divided by that of all prompts "
        "from theirs. In brackets: 95 % intervals, bootstrap over meta-groups."
    )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return 0


def _prompts(files: list[str]) -> Prompts:
    found: Prompts = {}
    for file in files:
        for row in read_rows(file):
            prompts, groups = found.setdefault(row["data_source"], ([], []))
            prompts.append(row["prompt"])
            groups.append(row["extra_info"]["intent_id"])
    return found


def _interval(e: Estimate, sign: str = "") -> str:
    inside = "" if e.low is None or e.high is None else f" [{e.low:{sign}.4g}, {e.high:{sign}.4g}]"
    return f"{e.value:{sign}.4g}{inside}"
