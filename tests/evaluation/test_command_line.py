"""``verl-air evaluate`` and ``verl-air report`` as a user calls them."""

import json
from pathlib import Path

import pytest

from tests.evaluation.support import row, write_jsonl, write_run
from verl_air.cli import main
from verl_air.evaluation import accuracy_of, read_records


def test_evaluate_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", steps=4, every=2)
    assert main(["evaluate", str(run), "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    records = [r for r in read_records(run / "validation" / "4.jsonl") if r.split == "id"]
    groups = accuracy_of(records).groups
    line = next(line for line in printed.splitlines() if line.startswith("safety/id: new intents "))
    assert f"{100 * groups:.1f} % [" in line
    assert " 16 " in line
    (evaluation,) = json.loads((tmp_path / "out.json").read_text())["evaluations"]
    assert evaluation["sections"][0]["whole"]["groups"]["value"] == pytest.approx(groups)


def test_evaluate_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", steps=4, every=4)
    assert main(["evaluate", "--compare", str(run / "validation" / "0.jsonl"), str(run)]) == 0
    printed = capsys.readouterr().out
    assert "safety/ood: 16 intents in both" in printed
    assert "mcnemar p" in printed


def test_names_from_data_cannot_break_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[31mred\ud800"
    rows = [row(domain=name, family=name, context=name, index=s) for s in range(2)]
    file = str(write_jsonl(tmp_path / "0.jsonl", rows))
    assert main(["evaluate", file, "--compare", file, file]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\\ud800" in printed


def test_report_writes_three_files(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=4, every=2)
    out = {name: tmp_path / "deep" / f"report.{name}" for name in ("html", "json", "md")}
    arguments = ["--out", str(out["html"]), "--json", str(out["json"]), "--markdown", str(out["md"])]
    assert main(["report", str(run), *arguments]) == 0
    assert out["html"].read_text().startswith("<!DOCTYPE html>")
    assert json.loads(out["json"].read_text())["runs"][0]["last_step"] == 4
    assert "| safety/ood | run | 4 | 16 |" in out["md"].read_text()
    assert sorted(path.name for path in out["html"].parent.iterdir()) == ["report.html", "report.json", "report.md"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate"], "give a JSONL file"),
        (["evaluate", "x.jsonl", "--level", "95"], "between 0 and 1"),
        (["evaluate", "nowhere.jsonl"], "no such file"),
        (["report", "nowhere"], "no such file"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_seeds_compares_methods_run_by_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"GRPO": 0.01, "AIR": 0.03}
    runs = {
        name: [str(write_run(tmp_path / name / str(seed), seed=seed, steps=4, every=2)) for seed in (1, 2, 3)]
        for name in names
    }
    methods = [part for name, folders in runs.items() for part in ("--method", name, *folders)]
    assert main(["seeds", *methods, "--threshold", "0.3", "--json", str(tmp_path / "seeds.json")]) == 0
    printed = capsys.readouterr().out
    assert "safety/ood: AIR minus GRPO" in printed
    ends = [
        accuracy_of(r for r in read_records(Path(run) / "validation" / "4.jsonl") if r.split == "id").groups
        for run in runs["GRPO"]
    ]
    rows = json.loads((tmp_path / "seeds.json").read_text())["rows"]
    (row,) = [r for r in rows if (r["method"], r["source"]) == ("GRPO", "safety/id")]
    assert row["end"]["value"] == pytest.approx(sum(ends) / 3)
    assert (row["seeds"], row["end"]["method"]) == (3, "t")


def test_seeds_prints_the_table_of_the_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Accuracy / group accuracy, a line a split and method, a column a domain; in Markdown with intervals."""
    domains = ("safety", "math")
    runs = {
        name: [
            str(write_run(tmp_path / name / str(seed), seed=seed, steps=4, every=2, domains=domains))
            for seed in (first, first + 1)
        ]
        for name, first in (("GRPO", 1), ("a|b", 3))
    }
    methods = [part for name, folders in runs.items() for part in ("--method", name, *folders)]
    assert main(["seeds", *methods, "--against", "GRPO", "--markdown", str(tmp_path / "table.md")]) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["split", "method", "seeds", "math", "safety"]
    cells = {}
    for line in (tmp_path / "table.md").read_text().replace("a\\|b", "a or b").splitlines()[2:]:
        split, method, seeds, *row = (cell.strip() for cell in line.strip("|").split(" | "))
        assert seeds == "2"
        cells |= {(split, method, domain): cell for domain, cell in zip(("math", "safety"), row, strict=True)}
    assert [key[:2] for key in cells][::2] == [("id", "GRPO"), ("id", "a or b"), ("ood", "GRPO"), ("ood", "a or b")]
    for (split, method, domain), cell in cells.items():
        found = [
            accuracy_of(
                r for r in read_records(Path(run) / "validation" / "4.jsonl") if (r.domain, r.split) == (domain, split)
            )
            for run in runs["a|b" if method == "a or b" else method]
        ]
        wanted = [[f.prompts for f in found], [f.groups for f in found]]
        parts = cell.split(" / ")
        assert [part.split(" %")[0] for part in parts] == [f"{50 * sum(values):.1f}" for values in wanted]
        assert ["[" in part for part in parts] == [a != b for a, b in wanted]


def test_a_name_for_a_run_in_the_report(tmp_path: Path) -> None:
    """``NAME=RUN``; a folder whose own name holds the sign is still found."""
    runs = [write_run(tmp_path / name, steps=4, every=2, intents=4) for name in ("one", "x=y")]
    out = tmp_path / "report.json"
    arguments = ["--out", str(tmp_path / "report.html"), "--json", str(out)]
    assert main(["report", f"GRPO={runs[0]}", str(runs[1]), f"GRPO={runs[1]}", *arguments]) == 0
    assert [run["name"] for run in json.loads(out.read_text())["runs"]] == ["GRPO", "x=y", "GRPO (3)"]


def test_seeds_says_what_cannot_be_paired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(write_run(tmp_path / "run", steps=4, every=2))
    assert main(["seeds", "--method", "A", run, run]) == 2
    assert "two runs with seed 0" in capsys.readouterr().err
    assert main(["seeds", "--method", "A", run, "--method", "A", run]) == 2
    assert "named twice" in capsys.readouterr().err
    (tmp_path / "run" / "checkpoints" / "config.yaml").unlink()
    assert main(["seeds", "--method", "A", run]) == 2
    assert "no data.seed" in capsys.readouterr().err
