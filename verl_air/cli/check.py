"""``verl-air check FILE...``: check data files before a run.

Give all files that are used together: leaks are found between them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from verl_air.data.check import CheckOptions, check_files
from verl_air.data.check.preview import write_preview
from verl_air.errors import DataError

_DEFAULTS = CheckOptions()


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("check", help="check data files", description=__doc__)
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="parquet files")
    add("--anchors", type=int, default=_DEFAULTS.anchors, help="anchors that a visit to an intent takes")
    add("--open", type=int, default=_DEFAULTS.open_, help="open rows that a visit takes")
    verifiers = "reward functions that check gold answers"
    add("--verifier", nargs="+", default=[], metavar="DOMAIN/ROLE=NAME", help=verifiers)
    add("--tokenizer", metavar="PATH", help="folder or hub name; checks prompt lengths too")
    add("--max-prompt-length", type=int, default=_DEFAULTS.max_prompt_length, help="in tokens (data.max_prompt_length)")
    add("--html", type=Path, metavar="FILE", help="write a preview to look through")
    add("--html-groups", type=int, default=60, metavar="N", help="how many meta-groups the preview shows")
    add("--limit", type=int, default=_DEFAULTS.limit, metavar="N", help="how many faults of one kind are listed")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check and print; returns 1 if there is an error.

    Raises:
        DataError: a file or an option cannot be used.
    """
    chosen = {name: getattr(args, name) for name in ("anchors", "tokenizer", "max_prompt_length", "limit")}
    options = CheckOptions(**chosen, open_=args.open, verifiers=dict(map(_verifier, args.verifier)))
    report = check_files(args.files, options)
    for name, file in report.files.items():
        counts = f"{file.intents} intents, {file.rows} rows ({file.anchors} anchors, {file.open} open)"
        print(f"{name}: {', '.join(file.domains)} {', '.join(file.splits)}: {counts}")
    for finding in report.findings:
        print(finding)
    for (severity, check), n in sorted(report.counts.items()):
        if n > report.limit:
            print(f"{severity}: {n - report.limit} more of kind [{check}]; --limit lists them")
    for note in report.notes:
        print(note)
    print(f"{report.number('error')} error(s), {report.number('warning')} warning(s)")
    if args.html:
        print(f"preview: {write_preview(args.html, args.files, report, groups=args.html_groups)}")
    return 0 if report.ok else 1


def _verifier(pair: str) -> tuple[str, str]:
    place, _, name = pair.partition("=")
    if not name or place.count("/") != 1:
        raise DataError(f"--verifier {pair}: write DOMAIN/ROLE=NAME, for example safety/anchor=true_false")
    return place, name
