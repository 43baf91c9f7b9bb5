"""What a command prints reaches the terminal; what other packages print does so only when something breaks."""

from __future__ import annotations

import subprocess
import sys

import pytest

NOISE = """
import logging, os, subprocess, sys, warnings
from verl_air import cli
from verl_air.cli.terminal import of_other_packages

def command(args):
    print("own line")
    print("own progress", file=sys.stderr)
    os.write(1, b"noise: descriptor 1\\n")
    os.write(2, b"noise: descriptor 2\\n")
    subprocess.run(["echo", "noise: child"])
    logging.getLogger("other").error("noise: log")
    logging.getLogger("verl_air.rewards").warning("own log")
    warnings.warn("noise: warning")
    print("noise: direct print", file=sys.__stdout__)
    with of_other_packages():
        print("noise: print")
    {end}

import argparse
cli.import_module = lambda name: argparse.Namespace(
    add_parser=lambda sub: sub.add_parser(name.split(".")[-1]).set_defaults(func=command)
)
raise SystemExit(cli.main(["check", *sys.argv[1:]]))
"""


def run(end: str, *options: str) -> subprocess.CompletedProcess[str]:
    code = NOISE.format(end=end)
    command = [sys.executable, "-c", code, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_own_lines_only() -> None:
    done = run("return 0")
    assert done.returncode == 0
    assert done.stdout == "own line\n"
    assert done.stderr.splitlines() == ["own progress", "own log"]


def test_an_error_of_the_user_stays_one_line() -> None:
    done = run("from verl_air.errors import ConfigError; raise ConfigError('wrong key')")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["own progress", "own log", "verl-air check: wrong key"]


@pytest.mark.parametrize("error", ["RuntimeError", "AssertionError"])
def test_an_unexpected_error_shows_all_that_was_printed(error: str) -> None:
    done = run(f"raise {error}('broken')")
    assert done.returncode == 1
    for noise in ("descriptor 1", "descriptor 2", "child", "log", "warning", "print", "direct print"):
        assert f"noise: {noise}" in done.stderr
    assert done.stderr.splitlines()[-1] == f"{error}: broken"


def test_a_supervised_training_writes_to_the_terminal() -> None:
    supervised = "supervise(['sh', '-c', 'echo training; echo its error >&2'], environment=os.environ, **options)"
    imports = "from verl_air.cluster.supervise import supervise; options = dict(lost=list, report=print)"
    done = run(f"{imports}; return {supervised}")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["own line", "training"]
    assert done.stderr.splitlines()[-1] == "its error"


def test_verbose_hides_nothing() -> None:
    done = run("return 0", "--verbose")
    assert {"own line", "noise: descriptor 1", "noise: child", "noise: print"} <= set(done.stdout.splitlines())
    assert "noise: warning" in done.stderr
