"""Whether a command of the documentation works: run where that is cheap, else given to the parser that it would meet.

``check`` raises ``CommandError`` with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.conftest import RECIPES, ROOT
from tests.docs.pages import Command
from verl_air.cli import COMMANDS, main
from verl_air.compose import read_recipe
from verl_air.errors import AirError

# What a page writes where a reader fills in something of his own.
FILLED = {"NAME": "grpo-qwen2.5_14b-2x8-megatron"}
LEFT_OUT = ("...", "[key=value", "...]")
# Options of sbatch that pages may use; there is no SLURM here to ask.
SBATCH = re.compile(r"--nodes=\d+|--time=\d+:\d\d:\d\d")


class CommandError(Exception):
    """The command fails, or would."""


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviated options, and raises where argparse's would end the process."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        raise CommandError(message)


def check(command: Command, world: Path, *, parse_only: bool = False) -> None:
    """Run or parse a command.

    Args:
        command: from a page.
        world: a folder that holds what the pages' examples take for granted; the current one.
        parse_only: a command of ``verl-air`` that needs what is not here is only parsed.
    """
    words = _filled(command.arguments, world)
    match command.program:
        case "make":
            for target in (word for word in words if "=" not in word):
                _check_target(target)
        case "verl-air":
            _verl_air_parser()[0].parse_args(words)
            _finished(lambda: 0 if parse_only else main(words))
        case "python" if words[:1] == ["-m"]:
            _check_module(words[1], words[2:])
        case "python":
            _need(words and (ROOT / words[0]).is_file(), f"{' '.join(words)}: no such file")
            if words[0].startswith("docs/"):  # an example, which later commands of its page build on
                _shell([sys.executable, str(ROOT / words[0]), *words[1:]], {}, world)
        case "pytest":
            _check_pytest(words)
        case "sbatch":
            _check_sbatch(words, world)
        case script if script.startswith("scripts/"):  # it reads its options, and composes and checks the recipe
            _need(os.access(ROOT / script, os.X_OK), f"{script}: cannot be executed")
            dry_run = [] if "--dry-run" in words else ["--dry-run"]
            _shell([str(ROOT / script), *dry_run, *words], dict(command.variables))
        case _:
            raise CommandError(f"{command.program}: no such program is known to this test")


def check_mention(command: Command) -> None:
    """The same for a command in running text, which may lack arguments: names and options exist."""
    words = [word for word in command.arguments if word not in LEFT_OUT]
    if command.program == "make":
        _check_target(words[0])
    elif command.program == "python" and words[0] == "-m":
        path = ROOT.joinpath(*words[1].split("."))
        found = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
        _need(found, f"python -m {words[1]}: no such module")
    elif command.program == "python":
        _need((ROOT / words[0]).is_file(), f"{words[0]}: no such file")
    elif command.program == "verl-air":
        _, parsers = _verl_air_parser()
        _need(words[0] in parsers, f"verl-air {words[0]}: no such command")
        known = parsers[words[0]].format_help()
        for option in (word.partition("=")[0] for word in words[1:] if word.startswith("--")):
            _need(re.search(rf"{option}\b(?!-)", known), f"{option}: no such option")


def _need(condition: object, message: str) -> None:
    if not condition:
        raise CommandError(message)


def _filled(arguments: Sequence[str], world: Path) -> list[str]:
    """Arguments with a reader's own names filled in, absolute folders put under ``world``, file patterns expanded."""
    words = []
    for word in arguments:
        if word in LEFT_OUT:
            continue
        word = re.sub(r"(^|=)/", rf"\1{world}/", FILLED.get(word, word))
        if "*" in word and "=" not in word:
            matching = sorted(glob.glob(word))
            _need(matching, f"{word}: no such files")
            words += matching
        else:
            words.append(word)
    return words


def _check_target(target: str) -> None:
    rules = re.findall(r"(?m)^([a-z0-9-]+):", (ROOT / "Makefile").read_text())
    _need(target in rules, f"make {target}: no such target")


def _verl_air_parser() -> tuple[_Parser, dict[str, argparse.ArgumentParser]]:
    """The parser of ``verl_air.cli.main``, and by name those of its commands."""
    parser = _Parser(prog="verl-air")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        importlib.import_module(f"verl_air.cli.{name}").add_parser(subparsers)
    return parser, dict(subparsers.choices)


def _finished(run: Callable[[], int]) -> None:
    """Raise with what was said if a command does not end with 0."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    _need(status == 0, f"status {status}: {said.getvalue()[-1500:]}")


def _check_module(module: str, arguments: list[str]) -> None:
    """``python -m``. Studies and the playground's building are parsed here; tests of theirs run them."""
    match module:
        case "verl.trainer.main_ppo":  # it knows two options of Hydra's here and takes the rest for overrides
            parser = _Parser(prog="main_ppo")
            parser.add_argument("--config-dir", required=True)
            parser.add_argument("--config-name", required=True)
            parser.add_argument("overrides", nargs="*")
            args = parser.parse_args(arguments)
            check_overrides(args.overrides, args.config_name, args.config_dir)
        case "pytest":
            _check_pytest(arguments)
        case _ if module.startswith(("studies.", "verl_air.playground")):
            file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
            run = importlib.import_module(module if file.is_file() else f"{module}.__main__")
            _finished(lambda: run.make_parser().parse_args(arguments) and 0)
            if module == "studies.experiment" and not any(word.endswith(".yaml") for word in arguments):
                _finished(lambda: run.main([*arguments, "--list"]))  # what its plan asks for
        case _:
            raise CommandError(f"python -m {module}: this test does not know how to check it")


def check_overrides(words: Sequence[str], recipe: str = "quickstart", config_dir: str = str(RECIPES)) -> None:
    """Overrides of a page fit a recipe."""
    try:
        read_recipe(recipe, words, config_dir=config_dir)
    except AirError as error:
        raise CommandError(str(error)) from error


def _check_pytest(words: list[str]) -> None:
    """Paths are there, and each holds a test with the marker and the name asked for."""
    parser = _Parser(prog="pytest")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-m", dest="marker")
    parser.add_argument("-k", dest="name", default="")
    args = parser.parse_args(words)
    for path in args.paths:
        found = [ROOT / path] if path.endswith(".py") else list((ROOT / path).rglob("test_*.py"))
        _need(found and all(file.is_file() for file in found), f"{path}: no tests there")
        marked = re.compile(rf"pytest\.mark\.{args.marker}\b")
        _need(not args.marker or any(marked.search(file.read_text()) for file in found), f"{path}: none {args.marker}")
        _need(any(args.name in file.read_text() for file in found), f"{path}: none named {args.name}")


def _check_sbatch(words: list[str], world: Path) -> None:
    script = next((i for i, word in enumerate(words) if not word.startswith("-")), None)
    _need(script is not None, "sbatch: no script")
    for option in words[:script]:
        _need(SBATCH.fullmatch(option), f"sbatch {option}: not an option that this test supports")
    scontrol = world / "slurm" / "scontrol"
    scontrol.parent.mkdir(exist_ok=True)
    scontrol.write_text("#!/bin/sh\nprintf 'n1\\nn2\\n'\n")
    scontrol.chmod(0o755)
    here = {"PATH": f"{scontrol.parent}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(ROOT), "DRY_RUN": "1"}
    _shell(["bash", str(ROOT / words[script]), *words[script + 1 :]], {**here, "SLURM_JOB_NODELIST": "n[1-2]"})


def _shell(command: list[str], variables: dict[str, str], folder: Path = ROOT) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    environment = {**kept, "PYTHON": sys.executable, **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    _need(done.returncode == 0, f"{shlex.join(command)}: status {done.returncode}: {done.stderr[-1500:]}")
