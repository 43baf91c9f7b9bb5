from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data.support import FIXTURES, SPLIT_FILES, spoil
from verl_air.cli import check, data
from verl_air.data.schema import read_rows
from verl_air.errors import ConfigError


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers(required=True)
    data.add_parser(subparsers)
    check.add_parser(subparsers)
    args = parser.parse_args([str(argument) for argument in arguments])
    return args.func(args)


@pytest.mark.parametrize(
    ("domain", "source"), [("safety", "requests.csv"), ("moral", "dilemmas.csv"), ("math", "problems.jsonl")]
)
def test_build_then_check(domain: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", domain, "--source", FIXTURES / source, "--out", tmp_path, "--seed", 3) == 0
    built = capsys.readouterr().out
    assert f"{tmp_path / 'ood.parquet'}: " in built
    files = [tmp_path / name for name in SPLIT_FILES]
    assert run("check", *files, "--html", tmp_path / "p.html") == 0
    checked = capsys.readouterr().out
    assert "0 error(s), 0 warning(s)" in checked
    assert (tmp_path / "p.html").stat().st_size > 5000


def test_options_reach_the_files(tmp_path: Path, own_registry: None) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "".join(f"- {{name: riddle-{n}, family: riddle, prompt: 'Riddle {n}: {{request}}'}}\n" for n in range(3))
    )
    run(
        *("data", "math", "--source", FIXTURES / "problems.jsonl", "--out", tmp_path, "--held-out", 3, "--anchors", 2),
        *("--open", 3, "--train-anchors", 3, "--train-open", 4, "--formats", "true_false", "multiple_choice"),
        *("--framings", own, "--ood-families", "riddle"),
    )
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["splits"]["ood"]["families"] == {"anchor": 6, "riddle": 9}
    assert manifest["splits"]["train"]["roles"] == {"anchor": 21, "open": 28}
    assert manifest["splits"]["id"]["contexts"].items() >= {"multiple_choice": 3, "true_false": 3}.items()


def test_left_out_rows_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("data", "moral", "--source", FIXTURES / "dilemmas.csv", "--out", tmp_path)
    printed = capsys.readouterr().out
    assert "left out: 1 rows: not of low ambiguity: no verifiable anchor (e.g. dilemmas.csv, line 12)" in printed


def test_faults_give_status_1_and_the_rest_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("data", "math", "--source", FIXTURES / "problems.jsonl", "--out", tmp_path)
    spoil(tmp_path / "id.parquet", lambda rows: [row["extra_info"].update(context="") for row in rows])
    n = len(list(read_rows(tmp_path / "id.parquet")))
    capsys.readouterr()
    assert run("check", tmp_path / "id.parquet", "--limit", 2) == 1
    printed = capsys.readouterr().out
    assert f"error: {tmp_path / 'id.parquet'}, row 0, extra_info.context: is missing or empty [values]" in printed
    assert f"error: {n - 2} more of kind [values]; --limit lists them" in printed
    assert f"{n} error(s)" in printed


@pytest.mark.slow
def test_rows_of_ones_own_pass_the_check_and_nothing_else_is_printed(tmp_path: Path) -> None:
    """docs/own_rows.py, then the command that it names, as a user runs them: the output holds verl-air's lines only."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def output(*command: str) -> list[str]:
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, env=environment)
        assert done.stderr == ""
        return done.stdout.splitlines()

    (line,) = output(str(ROOT / "docs" / "own_rows.py"), str(tmp_path))
    assert line == f"Now run: verl-air check {tmp_path / 'train.parquet'} {tmp_path / 'id.parquet'}"
    verl_air = "import sys; from verl_air.cli import main; sys.exit(main(sys.argv[1:]))"
    assert output("-c", verl_air, *line.split()[3:]) == [
        f"{tmp_path / 'train.parquet'}: animals train: 3 intents, 12 rows (3 anchors, 9 open)",
        f"{tmp_path / 'id.parquet'}: animals id: 2 intents, 8 rows (2 anchors, 6 open)",
        "0 error(s), 0 warning(s)",
    ]
    built = output("-c", verl_air, "data", "math", "--source", str(FIXTURES / "problems.jsonl"), "--out", str(tmp_path))
    assert [line.partition(":")[0] for line in built] == [str(tmp_path / name) for name in SPLIT_FILES]


def test_verifiers_on_the_command_line(tmp_path: Path) -> None:
    run("data", "math", "--source", FIXTURES / "problems.jsonl", "--out", tmp_path)
    assert run("check", tmp_path / "id.parquet", "--verifier", "math/open=math") == 0
    with pytest.raises(ConfigError, match="--verifier math: write DOMAIN/ROLE=NAME"):
        run("check", tmp_path / "id.parquet", "--verifier", "math")
