"""``verl-air report RUN... --out report.html``: one self-contained page about one or several runs.

A RUN is a run's folder, a folder of STEP.jsonl files, or one JSONL file of rollouts. It may be unfinished. NAME=RUN
gives it a name on the page. Where several are given, the others are compared with the first one on the same intents.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from verl_air.evaluation.report import summarise, write_page
from verl_air.evaluation.report.exports import to_json, to_markdown
from verl_air.files import write_atomically


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("report", help="a page about one or several runs", description=__doc__)
    add = parser.add_argument
    add("runs", nargs="+", metavar="[NAME=]RUN", help="run folders or JSONL; the first is what others are held against")
    add("--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (default: report.html)")
    add("--json", type=Path, metavar="FILE", help="write the numbers as JSON as well")
    add("--markdown", type=Path, metavar="FILE", help="write table and alarms as Markdown as well")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the files and name them.

    Raises:
        DataError: a run is not there or not what a run with an ``air:`` recipe writes.
    """
    paths, names = zip(*map(_path_and_name, args.runs), strict=True)
    report = summarise(paths, names)
    written = [write_page(report, args.out)]
    if args.json:
        written.append(write_atomically(args.json, json.dumps(to_json(report), indent=2, allow_nan=False) + "\n"))
    if args.markdown:
        written.append(write_atomically(args.markdown, to_markdown(report)))
    for path in written:
        print(path)
    return 0


def _path_and_name(run: str) -> tuple[str, str | None]:
    """``GRPO=runs/a`` taken apart; a path that is there as it stands may hold a ``=``."""
    name, equals, path = run.partition("=")
    return (run, None) if not equals or Path(run).exists() else (path, name or None)
