"""``verl-air evaluate PATH...``: accuracy and group accuracy from stored rollouts, with intervals.

A PATH is a JSONL file that a run stored, or a run's folder: its last validation is taken. ``--compare A B`` pairs two
of them by intent.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verl_air.errors import ConfigError
from verl_air.evaluation import Met, Record, breakdown, compare, read_records
from verl_air.evaluation.intervals import LEVEL
from verl_air.evaluation.run_folder import read_run_folder
from verl_air.evaluation.text_table import format_comparisons, format_sections


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("evaluate", help="accuracy from stored rollouts", description=__doc__)
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="JSONL files or run folders; each gets a table of its own")
    add("--compare", nargs=2, metavar=("A", "B"), help="two of them, paired by intent: B - A")
    add("--train", nargs="+", default=[], metavar="FILE", help="training files, to tell new intents from new framings")
    add("--level", type=float, default=LEVEL, help=f"coverage of the intervals (default {LEVEL})")
    add("--json", type=Path, metavar="FILE", help="write the numbers as well")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the tables.

    Raises:
        ConfigError: the options make no sense.
        DataError: a file cannot be read.
    """
    if not args.paths and not args.compare:
        raise ConfigError("give a JSONL file or a run's folder, or --compare A B")
    if not 0 < args.level < 1:
        raise ConfigError(f"--level {args.level:g}: must be between 0 and 1, for example 0.95")
    train = Met.from_files(args.train) if args.train else None
    numbers: dict[str, Any] = {"level": args.level, "evaluations": [], "comparisons": []}
    for path in args.paths:
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
