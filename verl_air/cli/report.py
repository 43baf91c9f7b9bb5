"""``verl-air report [NAME=]RUN... --out report.html``: one self-contained page about one or several runs.

A RUN is a run's folder, a folder of STEP.jsonl files, or one JSONL file of rollouts. It may be unfinished. NAME=RUN
names it. Several runs of one NAME are seeds of one method (`data.seed` of each): then methods are compared over seeds,
in the paper's table, with intervals and paired differences, on the page and on the terminal. The first run, or method,
is the one that the others are compared with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from verl_air.evaluation.report import summarise, to_json, to_markdown, write_page
from verl_air.evaluation.report.page import seed_tables_as_text
from verl_air.evaluation.tables import text_table, visible
from verl_air.files import write_atomically


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("report", help="a page about one or several runs", description=__doc__)
    add = parser.add_argument
    add("runs", nargs="+", metavar="[NAME=]RUN", help="run folders or JSONL; several of one NAME are seeds of a method")
    add("--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (default: report.html)")
    add("--json", type=Path, metavar="FILE", help="also write all numbers as JSON")
    add("--markdown", type=Path, metavar="FILE", help="also write tables and alarms as Markdown")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the files, print the tables over seeds, and name the files.

    Raises:
        DataError: a run is not there or not what a run with an ``air:`` recipe writes, or runs of one name are not
            distinct seeds.
    """
    paths, names = zip(*map(_path_and_name, args.runs), strict=True)
    report = summarise(paths, names)
    written = [write_page(report, args.out)]
    if args.json:
        written.append(write_atomically(args.json, json.dumps(to_json(report), indent=2, allow_nan=False) + "\n"))
    if args.markdown:
        written.append(write_atomically(args.markdown, to_markdown(report)))
    for title, (head, *rows) in seed_tables_as_text(report):
        print(f"{visible(title)}\n\n{text_table(head, [[*map(visible, row)] for row in rows], left=2)}\n")
    if report.seeds:
        print("In brackets: 95 % intervals over seeds (Student's t).\n")
    print(*written, sep="\n")
    return 0


def _path_and_name(run: str) -> tuple[str, str | None]:
    """Split ``GRPO=runs/a``; an existing path may contain a ``=``."""
    name, equals, path = run.partition("=")
    return (run, None) if not equals or Path(run).exists() else (path, name or None)
