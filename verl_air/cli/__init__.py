"""The command line, one module a command: ``verl-air data | check | plan | scale | doctor | launch``, then
``evaluate | dispersion | report``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from verl_air import __version__
from verl_air.errors import AirError

COMMANDS = ("data", "check", "plan", "scale", "doctor", "launch", "evaluate", "dispersion", "report")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors that are the user's to mend are one line, with exit status 2."""
    parser = argparse.ArgumentParser(prog="verl-air", description="Anchor Invariance Regularization for verl.")
    parser.add_argument("--version", action="version", version=f"verl-air {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        import_module(f"{__name__}.{command}").add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return int(args.func(args))
    except AirError as error:
        print(f"verl-air {args.command}: {error}", file=sys.stderr)
        return 2
