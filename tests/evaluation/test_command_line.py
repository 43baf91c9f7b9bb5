"""``verl-air evaluate`` and ``verl-air report`` as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.evaluation.support import row, write_jsonl, write_run
from verl_air.cli import main
from verl_air.evaluation import accuracy_of, read_records

Capture = pytest.CaptureFixture[str]


def test_evaluate_prints_and_writes(tmp_path: Path, capsys: Capture) -> None:
    run = write_run(tmp_path / "run", steps=4, every=2)
    assert main(["evaluate", str(run), "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    records = [r for r in read_records(run / "validation" / "4.jsonl") if r.split == "id"]
    groups = accuracy_of(records).groups
    line = next(line for line in printed.splitlines() if line.startswith("safety/id "))
    assert f"{100 * groups:.1f} % [" in line
    assert " 16 " in line
    assert any(line.startswith("  framing polite ") for line in printed.splitlines()), "lines are indented"
    (evaluation,) = json.loads((tmp_path / "out.json").read_text())["evaluations"]
    assert evaluation["sections"][0]["whole"]["groups"]["value"] == pytest.approx(groups)


def test_evaluate_compares(tmp_path: Path, capsys: Capture) -> None:
    run = write_run(tmp_path / "run", steps=4, every=4)
    assert main(["evaluate", "--compare", str(run / "validation" / "0.jsonl"), str(run)]) == 0
    printed = capsys.readouterr().out
    assert "safety/ood: 16 intents in both" in printed
    assert "mcnemar p" in printed


def test_names_from_data_cannot_break_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    name = "\x1b[31mred\ud800"
    rows = [row(domain=name, family=name, context=name, index=s) for s in range(2)]
    file = str(write_jsonl(tmp_path / "0.jsonl", rows))
    assert main(["evaluate", file, "--compare", file, file]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\\ud800" in printed


def test_report_writes_three_files(tmp_path: Path, capsys: Capture) -> None:
    run = write_run(tmp_path / "run", steps=4, every=2)
    out = [tmp_path / "deep" / f"report.{name}" for name in ("html", "json", "md")]
    assert main(["report", str(run), *map(str, ("--out", out[0], "--json", out[1], "--markdown", out[2]))]) == 0
    assert capsys.readouterr().out.splitlines() == [*map(str, out)]
    assert out[0].read_text().startswith("<!DOCTYPE html>")
    assert json.loads(out[1].read_text())["runs"][0]["last_step"] == 4
    assert "| safety/ood | run | 4 | 16 | 0 |" in out[2].read_text()
    assert sorted(out[0].parent.iterdir()) == sorted(out)


def runs_of(folder: Path, methods: dict[str, tuple[int, ...]], **columns: object) -> dict[str, list[Path]]:
    return {
        name: [write_run(folder / str(i) / str(seed), seed=seed, steps=4, every=2, **columns) for seed in seeds]
        for i, (name, seeds) in enumerate(methods.items())
    }


def report(runs: dict[str, list[Path]], folder: Path, *arguments: str) -> int:
    named = [f"{name}={run}" for name, folders in runs.items() for run in folders]
    return main(["report", *named, "--out", str(folder / "report.html"), *arguments])


def test_runs_of_one_name_are_seeds_of_a_method(tmp_path: Path, capsys: Capture) -> None:
    runs = runs_of(tmp_path, {"GRPO": (1, 2, 3), "AIR": (1, 2, 3)}, intents=6)
    assert report(runs, tmp_path, "--json", str(tmp_path / "out.json")) == 0
    printed = capsys.readouterr().out
    assert "AIR minus GRPO" in printed
    assert printed.endswith(f"{tmp_path / 'report.html'}\n{tmp_path / 'out.json'}\n")
    ends = [
        accuracy_of(r for r in read_records(run / "validation" / "4.jsonl") if r.split == "id").groups
        for run in runs["GRPO"]
    ]
    numbers = json.loads((tmp_path / "out.json").read_text())
    found = [r for r in numbers["seeds"]["rows"] if (r["method"], r["source"]) == ("GRPO", "safety/id")]
    (groups,) = [r for r in found if r["metric"] == "group_acc"]
    assert groups["end"]["value"] == pytest.approx(sum(ends) / 3)
    assert (groups["seeds"], groups["end"]["method"]) == (3, "t")
    assert [run["name"] for run in numbers["runs"]][2:4] == ["GRPO, seed 3", "AIR, seed 1"]
    page = (tmp_path / "report.html").read_text()
    assert "AIR minus GRPO" in page.split("Methods over several seeds")[1].split("Accuracy on validation data")[0]


def test_the_table_of_the_paper(tmp_path: Path, capsys: Capture) -> None:
    """Accuracy / group accuracy, a line per split and method, a column per domain; in Markdown too."""
    runs = runs_of(tmp_path, {"GRPO": (1, 2), "a|b": (3, 4)}, domains=("safety", "math"))
    assert report(runs, tmp_path, "--markdown", str(tmp_path / "table.md")) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["split", "method", "seeds", "math", "safety"]
    cells = {}
    text = (tmp_path / "table.md").read_text().replace("a\\|b", "a or b")
    for line in text.split("| split |")[1].split("\n\n")[0].splitlines()[2:]:
        split, method, seeds, *values = (cell.strip() for cell in line.strip("|").split(" | "))
        assert seeds == "2"
        cells |= {(split, method, domain): cell for domain, cell in zip(("math", "safety"), values, strict=True)}
    assert [key[:2] for key in cells][::2] == [("id", "GRPO"), ("id", "a or b"), ("ood", "GRPO"), ("ood", "a or b")]
    for (split, method, domain), cell in cells.items():
        found = [
            accuracy_of(
                r for r in read_records(run / "validation" / "4.jsonl") if (r.domain, r.split) == (domain, split)
            )
            for run in runs["a|b" if method == "a or b" else method]
        ]
        wanted = [[f.prompts for f in found], [f.groups for f in found]]
        parts = cell.split(" / ")
        assert [part.split(" %")[0] for part in parts] == [f"{50 * sum(values):.1f}" for values in wanted]
        assert ["[" in part for part in parts] == [a != b for a, b in wanted]


def test_seeds_that_are_not_distinct(tmp_path: Path, capsys: Capture) -> None:
    run = write_run(tmp_path / "run", steps=4, every=2)
    assert report({"A": [run, run]}, tmp_path) == 2
    assert "A: two runs with seed 0" in capsys.readouterr().err
    (run / "checkpoints" / "config.yaml").write_text(yaml.safe_dump({"data": {}}))
    assert report({"A": [run, run]}, tmp_path) == 2
    assert "no data.seed" in capsys.readouterr().err


def test_a_name_for_a_run_in_the_report(tmp_path: Path) -> None:
    """``NAME=RUN``; a folder whose own name contains the sign is still found."""
    runs = [write_run(tmp_path / name, steps=4, every=2, intents=4) for name in ("one", "x=y")]
    out = tmp_path / "report.json"
    arguments = ["--out", str(tmp_path / "report.html"), "--json", str(out)]
    assert main(["report", f"GRPO={runs[0]}", str(runs[1]), f"AIR={runs[1]}", *arguments]) == 0
    assert [run["name"] for run in json.loads(out.read_text())["runs"]] == ["GRPO", "x=y", "AIR"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate"], "give a JSONL file"),
        (["evaluate", "nowhere.jsonl"], "no such file"),
        (["report", "nowhere"], "no such file"),
        (["evaluate", "--model", "x", "--rejudge", "y"], "name one"),
        (["evaluate", "--model", "x"], "--out"),
        (["evaluate", "--model", "x", "--out", "o"], "say how to score"),
        (["evaluate", "--model", "x", "--out", "o", "--route", "lab/open=nobody"], "no reward named"),
        (["evaluate", "--model", "x", "--out", "o", "--route", "lab/open"], "write DOMAIN/ROLE=NAME"),
        (["evaluate", "--model", "x", "--out", "o", "--route", "*/*=exact_match"], "--data"),
        (["evaluate", "--model", "x", "--out", "o", "--capability", "gsm8k=f"], "write NAME:RULE=FILE"),
        (
            ["evaluate", "--model", "x", "--out", "o", "--data", "d", "--capability", "a:exact_match=f"],
            "with --data, or",
        ),
        (["evaluate", "--model", "x", "--out", "o", "--capability", *["a:exact_match=f"] * 2], "a name of its own"),
        (["evaluate", "--model", "none", "--out", "o", "--route", "*/*=exact_match", "--data", "d"], "no model"),
        (
            ["evaluate", "--model", "x", "--out", "o", "--route", "*/*=exact_match", "--data", "d", "--n", "0"],
            "at least 1",
        ),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_reading_help_imports_nothing_slow() -> None:
    code = (
        "import sys, verl_air.cli.evaluate, verl_air.cli.report;"
        "sys.exit(any(name in sys.modules for name in ('vllm', 'torch', 'verl', 'scipy', 'transformers')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
