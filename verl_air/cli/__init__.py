"""The command line, one module per command: ``verl-air data | check | doctor | launch | evaluate | report``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module

from verl_air import __version__
from verl_air.cli.terminal import own_lines_only
from verl_air.errors import AirError

COMMANDS = ("data", "check", "doctor", "launch", "evaluate", "report")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. An error that the user can fix is one line, with exit status 2."""
    parser = argparse.ArgumentParser(prog="verl-air", description="Anchor Invariance Regularization for verl.")
    parser.add_argument("--version", action="version", version=f"verl-air {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        import_module(f"{__name__}.{command}").add_parser(subparsers)
        added = subparsers.choices[command]
        added.description = (added.description or "").replace("``", "`")  # the module's docstring
        added.add_argument("--verbose", action="store_true", help="show other packages' output")
    args, rest = parser.parse_known_args(argv)
    if rest:  # argparse stops reading overrides at the first option after them
        if "overrides" not in args or any(word.startswith("-") or "=" not in word for word in rest):
            subparsers.choices[args.command].error(f"unrecognized arguments: {' '.join(rest)}")
        args.overrides += rest
    try:
        with nullcontext() if args.verbose else own_lines_only():
            return int(args.func(args))
    except AirError as error:
        print(f"verl-air {args.command}: {error}", file=sys.stderr)
        return 2
