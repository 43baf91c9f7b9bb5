"""How far apart a model's hidden states are within meta-groups: ``python -m studies.dispersion MODEL... --data ...``.

With several models the others are compared with the first, paired by meta-group.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studies.dispersion.measure import Dispersion, dispersion_of, mean_with_interval, paired_difference, prompt_states
from verl_air.data.schema import PromptMessage, read_rows
from verl_air.errors import AirError
from verl_air.evaluation.checkpoints import model_folder
from verl_air.evaluation.statistics import Estimate
from verl_air.evaluation.tables import visible
from verl_air.files import write_atomically

Prompts = dict[str, tuple[list[list[PromptMessage]], list[str]]]
"""By ``domain/split``: prompts, and the meta-group of each."""


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m studies.dispersion", description=__doc__)
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="Hugging Face folders, checkpoints of verl's, or run folders")
    add("--data", nargs="+", required=True, metavar="FILE", help="parquet files")
    add("--layer", type=int, default=-1, help="0 is the embedding, -1 (default) the last, after the final norm")
    add("--batch-size", type=int, default=16, help="prompts per forward pass (default 16)")
    add("--dtype", default="float32", help="type to compute in (default float32)")
    add("--json", type=Path, metavar="FILE", help="write the numbers as well")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 2 if a model or a file cannot be used."""
    args = make_parser().parse_args(argv)
    try:
        return _run(args)
    except AirError as error:
        print(f"dispersion: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    """Print absolute and relative dispersion of each model on each ``domain/split``."""
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
            entry["unrelated"] = found.unrelated
            for kind, values in (("absolute", found.absolute_Z), ("relative", found.relative_Z)):
                estimate = mean_with_interval(values)
                entry[kind] = asdict(estimate)
                line = f"  {visible(source)}, {kind}: {_interval(estimate)}, {estimate.n} meta-groups"
                if kind == "relative":
                    line += f" (unrelated prompts: {found.unrelated:.3f})"
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
        write_atomically(args.json, json.dumps(numbers, indent=2) + "\n")
    return 0


def _prompts(files: Sequence[str]) -> Prompts:
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


if __name__ == "__main__":
    raise SystemExit(main())
