"""``verl-air seeds --method NAME RUN... --method NAME RUN...``: methods over several seeds.

First the paper's own table, accuracy / group accuracy at the end point. Then means over seeds with intervals, and
differences on the same seeds (``data.seed`` of each run): end point, mean height of the curve, steps to a threshold.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from verl_air.errors import ConfigError, DataError
from verl_air.evaluation.curves import METRICS, Curves, curves_of
from verl_air.evaluation.intervals import LEVEL
from verl_air.evaluation.paper_table import METRICS as METRICS_OF_THE_PAPER
from verl_air.evaluation.paper_table import paper_table
from verl_air.evaluation.run_folder import RunFolder, read_run_folder
from verl_air.evaluation.seeds import BySeed, SeedRow, seed_differences, seed_rows
from verl_air.evaluation.text_table import align, format_seed_differences, format_seed_rows, markdown_table
from verl_air.evaluation.untrusted import in_markdown, visible
from verl_air.files import write_atomically


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("seeds", help="methods compared over several seeds", description=__doc__)
    add = parser.add_argument
    add("--method", nargs="+", action="append", required=True, metavar=("NAME", "RUN"), help="a method and its runs")
    add("--against", metavar="NAME", help="what the others are held against (default: the first method)")
    add("--metric", choices=METRICS, default="group_acc", help="(default %(default)s)")
    add("--threshold", type=float, default=0.5, help="of the steps to it (default %(default)s)")
    add("--level", type=float, default=LEVEL, help="coverage of the intervals (default %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the numbers as well")
    add("--markdown", type=Path, metavar="FILE", help="write the paper's table as well, with intervals")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print a table for each ``domain/split``.

    Raises:
        ConfigError: the options make no sense.
        DataError: a run cannot be read, has no seed, or lacks validations that the others have.
    """
    if not 0 < args.level < 1:
        raise ConfigError(f"--level {args.level:g}: must be between 0 and 1, for example 0.95")
    methods = {name: _by_seed(name, runs) for name, *runs in args.method}
    if len(methods) < len(args.method):
        raise ConfigError("a method is named twice; give all of its runs at once")
    against = args.against or next(iter(methods))
    sources = sorted(set.intersection(*(_sources(runs) for runs in methods.values())))
    if not sources:
        raise DataError("the runs have no validation of one domain and split in common")
    rows = [row for source in sources for row in seed_rows(methods, source, args.metric, args.threshold, args.level)]
    claim = [row for source in sources for row in _claim(methods, source, args)]
    pairs = [
        difference
        for source in sources
        for difference in seed_differences(methods, against, source, args.metric, args.threshold, args.level)
    ]
    print("accuracy / group accuracy at the end point, mean over seeds\n")
    print(align([[visible(cell) for cell in line] for line in paper_table(claim)], left=2), end="\n\n")
    print(format_seed_rows(rows))
    if pairs:
        print(f"\n{format_seed_differences(pairs)}")
    print(f"\nIn brackets: {args.level:.0%} intervals over seeds (Student's t). A run that never gets to the threshold "
          "counts with its last step.")  # fmt: skip
    if args.json:
        content = {"rows": [asdict(row) for row in rows], "differences": [asdict(pair) for pair in pairs]}
        write_atomically(args.json, json.dumps(content, indent=2) + "\n")
    if args.markdown:
        table = [[in_markdown(cell) for cell in line] for line in paper_table(claim, intervals=True)]
        write_atomically(args.markdown, "\n".join(markdown_table(table)) + "\n")
    return 0


def _claim(methods: Mapping[str, BySeed], source: str, args: argparse.Namespace) -> list[SeedRow]:
    """Rows of the paper's table. Where every meta-group of some run holds an abstention it has no group accuracy."""
    runs = [curves[source] for by_seed in methods.values() for curves in by_seed.values()]
    known = [metric for metric in METRICS_OF_THE_PAPER if all(metric in curves for curves in runs)]
    return [row for metric in known for row in seed_rows(methods, source, metric, args.threshold, args.level)]


def _by_seed(name: str, paths: list[str]) -> BySeed:
    if not paths:
        raise ConfigError(f"--method {name}: name its runs as well")
    runs: dict[int, Curves] = {}
    for path in paths:
        folder = read_run_folder(path)
        seed = _seed(folder)
        if seed in runs:
            raise DataError(f"--method {name}: two runs with seed {seed}; the second is {path}")
        runs[seed] = curves_of(folder)
    return runs


def _seed(folder: RunFolder) -> int:
    seed = (folder.config.get("data") or {}).get("seed")
    if not isinstance(seed, int):
        raise DataError(f"{folder.path}: its stored recipe has no data.seed, so it cannot be paired with another run")
    return seed


def _sources(runs: Mapping[int, Curves]) -> set[str]:
    return set.intersection(*(set(curves) for curves in runs.values()))
