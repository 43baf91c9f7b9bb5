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
    """As argparse's, but it takes no abbreviated options, and raises where that would end the process."""

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
    if command.program == "make":
        for target in (word for word in words if "=" not in word):
            _check_target(target)
    elif command.program == "verl-air":
        _check_verl_air(words, parse_only)
    elif command.program == "python":
        _check_python(words)
    elif command.program == "pytest":
        _check_pytest(words)
    elif command.program == "sbatch":
        _check_sbatch(words, world)
    elif command.program.startswith("scripts/"):
        _check_script(command.program, words, dict(command.variables))
    else:
        raise CommandError(f"{command.program}: no such program is known to this test")


def check_mention(command: Command) -> None:
    """The same for a command in running text, which may lack arguments: names and options exist."""
    words = [word for word in command.arguments if word not in LEFT_OUT]
    if command.program == "make":
        _check_target(words[0])
    elif command.program == "python" and words[0] == "-m":
        _module_file(words[1])
    elif command.program == "python":
        _need((ROOT / words[0]).is_file(), f"{words[0]}: no such file")
    elif command.program == "verl-air":
        _, parsers = _verl_air_parser()
        _need(words[0] in parsers, f"verl-air {words[0]}: no such command")
        known = parsers[words[0]].format_help()
        for word in words[1:]:
            option = word.partition("=")[0]
            _need(not word.startswith("--") or re.search(rf"{option}\b(?!-)", known), f"{option}: no such option")


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
    rules = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
    _need(target in rules, f"make {target}: no such target")


def _verl_air_parser() -> tuple[_Parser, dict[str, argparse.ArgumentParser]]:
    """The parser of ``verl_air.cli.main``, and by name those of its commands."""
    parser = _Parser(prog="verl-air")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        importlib.import_module(f"verl_air.cli.{name}").add_parser(subparsers)
    return parser, dict(subparsers.choices)


def _check_verl_air(words: list[str], parse_only: bool) -> None:
    _verl_air_parser()[0].parse_args(words)
    if parse_only:
        return
    _finished(lambda: main(words))


def _finished(run: Callable[[], int]) -> None:
    """Raise with what was said if a command does not end with 0."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    _need(status == 0, f"status {status}: {said.getvalue()[-1500:]}")


def _check_python(words: list[str]) -> None:
    if words[:1] != ["-m"]:
        _need(words and (ROOT / words[0]).is_file(), f"{' '.join(words)}: no such file")
        if words[0].startswith("docs/"):  # an example, which later commands of its page build on
            _finished(
                lambda: subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:]], check=False).returncode
            )
        return
    module, *arguments = words[1:]
    if module == "verl.trainer.main_ppo":
        _check_recipe(arguments)
    elif module == "pytest":
        _check_pytest(arguments)
    elif module.startswith("studies."):
        _check_study(module, arguments)
    elif module == "verl_air.playground":
        _check_playground(arguments)
    else:
        raise CommandError(f"python -m {module}: this test does not know how to check it")


def _module_file(module: str) -> None:
    path = ROOT.joinpath(*module.split("."))
    _need(path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"python -m {module}: no such module")


def _check_recipe(arguments: list[str]) -> None:
    """Compose as ``main_ppo`` would, which accepts two options of Hydra's here and takes the rest for overrides."""
    parser = _Parser(prog="main_ppo")
    parser.add_argument("--config-dir", required=True)
    parser.add_argument("--config-name", required=True)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args(arguments)
    try:
        read_recipe(args.config_name, args.overrides, config_dir=args.config_dir)
    except AirError as error:
        raise CommandError(str(error)) from error


def check_overrides(words: Sequence[str], recipe: str = "quickstart") -> None:
    """Overrides of a page fit a recipe."""
    _check_recipe(["--config-dir", str(RECIPES), "--config-name", recipe, *words])


def _check_pytest(words: list[str]) -> None:
    """Paths are there, and each holds a test with the marker asked for."""
    parser = _Parser(prog="pytest")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("-m", dest="marker")
    args = parser.parse_args(words)
    for path in args.paths:
        found = [ROOT / path] if path.endswith(".py") else list((ROOT / path).rglob("test_*.py"))
        _need(found and all(file.is_file() for file in found), f"{path}: no tests there")
        marked = re.compile(rf"pytest\.mark\.{args.marker}\b")
        _need(not args.marker or any(marked.search(file.read_text()) for file in found), f"{path}: none {args.marker}")


def _check_study(module: str, arguments: list[str]) -> None:
    """Parse; the tests of the study run it. An experiment also lists what its plan asks for."""
    study = importlib.import_module(f"{module}.__main__")
    _finished(lambda: int(study.make_parser().parse_args(arguments) is None))
    if module == "studies.experiment" and not any(word.endswith(".yaml") for word in arguments):
        _finished(lambda: study.main([*arguments, "--list"]))


def _check_playground(arguments: list[str]) -> None:
    """Parse; the building takes more than a minute, and the quickstart does it."""
    from verl_air.playground.__main__ import make_parser

    def parse() -> int:
        make_parser().parse_args(arguments)
        return 0

    _finished(parse)


def _check_script(script: str, words: list[str], variables: dict[str, str]) -> None:
    """``--dry-run``: it reads its options, and the recipe is composed and checked."""
    _need((ROOT / script).is_file() and os.access(ROOT / script, os.X_OK), f"{script}: cannot be executed")
    _shell([str(ROOT / script), *([] if "--dry-run" in words else ["--dry-run"]), *words], variables)


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


def _shell(command: list[str], variables: dict[str, str]) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    environment = {**kept, "PYTHON": sys.executable, **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    _need(done.returncode == 0, f"{shlex.join(command)}: status {done.returncode}: {done.stderr[-1500:]}")
