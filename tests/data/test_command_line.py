from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tests.data.support import FIXTURES, SPLIT_FILES, spoil
from verl_air.cli import check, data
from verl_air.data import framings
from verl_air.data.schema import read_rows
from verl_air.errors import DataError


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


def test_options_reach_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = dict(framings._registry())
    monkeypatch.setattr(framings, "_registry", lambda: registry)
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


def test_left_out_rows_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("data", "moral", "--source", FIXTURES / "dilemmas.csv", "--out", tmp_path)
    told = capsys.readouterr().out
    assert "left out: 1 rows: not of low ambiguity: no verifiable anchor (e.g. dilemmas.csv, line 12)" in told


def test_faults_give_status_1_and_the_rest_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("data", "math", "--source", FIXTURES / "problems.jsonl", "--out", tmp_path)
    spoil(tmp_path / "id.parquet", lambda rows: [row["extra_info"].update(context="") for row in rows])
    n = len(list(read_rows(tmp_path / "id.parquet")))
    capsys.readouterr()
    assert run("check", tmp_path / "id.parquet", "--limit", 2) == 1
    told = capsys.readouterr().out
    assert f"error: {tmp_path / 'id.parquet'}, row 0, extra_info.context: is missing or empty [values]" in told
    assert f"error: {n - 2} more of kind [values]; --limit lists them" in told
    assert f"{n} error(s)" in told


def test_verifiers_on_the_command_line(tmp_path: Path) -> None:
    run("data", "math", "--source", FIXTURES / "problems.jsonl", "--out", tmp_path)
    assert run("check", tmp_path / "id.parquet", "--verifier", "math/open=math") == 0
    with pytest.raises(DataError, match="--verifier math: write DOMAIN/ROLE=NAME"):
        run("check", tmp_path / "id.parquet", "--verifier", "math")
