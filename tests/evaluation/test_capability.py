"""General benchmarks before and after training: read, scored by a rule, compared in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.evaluation.support import write_jsonl, write_run
from tests.evaluation.test_generate import Parrot
from verl_air.cli import evaluate, main
from verl_air.evaluation.capability import CapabilityBenchmark
from verl_air.evaluation.report import summarise, to_json, to_markdown
from verl_air.evaluation.report.page import render, sentences
from verl_air.evaluation.vllm_generator import seed_of

GSM8K = ROOT.parent / "shared" / "data" / "gsm8k" / "test.jsonl"
LETTERS = "AAAABBBB"


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    """Eight questions; the parrot answers A in some of three cases, whatever they are."""
    rows = [{"question": f"Which letter, {z}?", "answer": letter} for z, letter in enumerate(LETTERS)]
    return f"letters:multiple_choice={write_jsonl(tmp_path / 'letters.jsonl', rows)}"


def test_before_and_after_beside_group_accuracy(
    benchmark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two evaluations into a run's folder, and the report shows the change, paired by question."""
    run, model = write_run(tmp_path / "run", steps=4, every=2), tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("{}")
    monkeypatch.setattr(evaluate, "vllm_generator", lambda *_: Parrot())
    answers = {}
    for step, seed in ((0, 0), (4, 1)):
        out = run / "capability" / f"{step}.jsonl"
        arguments = ["--model", str(model), "--capability", benchmark, "--seed", str(seed), "--out", str(out)]
        assert main(["evaluate", *arguments]) == 0
        assert "letters/capability" in capsys.readouterr().out
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert {(row["role"], row["split"], row["domain"]) for row in rows} == {("question", "capability", "letters")}
        words = ["A" if seed_of(seed, f"letters-{z}_0") % 3 == 0 else "" for z in range(8)]
        assert [row["acc"] for row in rows] == [float(a == b) for a, b in zip(words, LETTERS, strict=True)]
        answers[step] = [row["acc"] for row in rows]
    report = summarise([run])
    (change,) = report.runs[0].capability
    assert (change.intents, change.test, report.runs[0].folder.faults) == (8, "mcnemar", [])
    assert change.groups.value == pytest.approx((sum(answers[4]) - sum(answers[0])) / 8)
    assert change.groups.low <= change.groups.value <= change.groups.high
    said = [text for _, text in sentences(report)]
    assert said[0].startswith("safety/id: group accuracy ")
    assert said[-1].startswith("letters/capability: accuracy ")
    assert "at step 4" in said[-1]
    assert "on the same 8 questions" in said[-1]
    page = render(report)
    assert "Capability: general benchmarks" in page
    assert "| run | letters | 8 |" in to_markdown(report)
    assert to_json(report)["runs"][0]["capability"][0]["intents"] == 8


def test_one_evaluation_is_no_change(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=2, every=1)
    source = (run / "validation" / "0.jsonl").read_text()
    (run / "capability").mkdir()
    (run / "capability" / "0.jsonl").write_text(source)
    (found,) = summarise([run]).runs
    assert found.capability == []
    assert found.folder.faults == ["capability: a change needs two stored evaluations of the same questions"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("letters=q.jsonl", {}, "write NAME:RULE=FILE"),
        ("letters:nobody=q.jsonl", {}, "no reward named 'nobody'"),
        ("letters:multiple_choice=nowhere.jsonl", {}, "nowhere.jsonl: no such file"),
        ("letters:multiple_choice=q.jsonl", {"question": "Which?"}, "no column 'answer'"),
        ("letters:multiple_choice=q.jsonl", {"question": "", "answer": "A"}, "q.jsonl, line 1: no question"),
        ("letters:multiple_choice=q.jsonl", {"question": "Which?", "answer": "#### "}, "q.jsonl, line 1: no answer"),
        ("letters:multiple_choice=q.jsonl", {"question": "Which?", "answer": "E"}, "ground truth 'E' is not one of"),
    ],
)
def test_mistakes_are_named_before_a_model_runs(
    text: str,
    line: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "q.jsonl", [line])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").touch()
    assert main(["evaluate", "--model", "model", "--capability", text, "--out", "o.jsonl"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.skipif(not GSM8K.is_file(), reason="GSM8K is not in ../shared/data")
def test_gsm8k_is_read_whole() -> None:
    pytest.importorskip("math_verify")
    rows = list(CapabilityBenchmark.parse(f"gsm8k:math={GSM8K}").rows("plain"))
    assert len({row["extra_info"]["intent_id"] for row in rows}) == len(rows) == 1319
    assert rows[0]["reward_model"]["ground_truth"] == "18"
    assert rows[0]["prompt"][0]["content"].endswith("end with the final result, as \\boxed{...}.")
