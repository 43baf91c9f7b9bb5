"""MATH and Moral Stories: files with the published columns and a few rows, built and checked on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.support import SPLIT_FILES
from verl_air.cli import main
from verl_air.data.check import check_files
from verl_air.data.math import final_answer, read_math
from verl_air.data.moral import read_moral
from verl_air.data.schema import read_rows
from verl_air.errors import DataError
from verl_air.rewards import self_check


def problem(number: int, boxed: str, **columns: Any) -> dict[str, Any]:
    solution = rf"First \boxed{{{number}}} is near. So the answer is $\boxed{{{boxed}}}$."
    own = {"problem": f"What is thing {number}?", "level": f"Level {number}", "type": "Algebra", "solution": solution}
    return own | columns


def story(number: int, **columns: Any) -> dict[str, Any]:
    return {
        "ID": f"story-{number}",
        "norm": f"You should keep promise {number}.",
        "situation": f"Ann owes Bob {number} books.",
        "intention": f"Ann wants a quiet day {number}.",
        "moral_action": f"Ann brings all {number} back.",
        "moral_consequence": "Bob is glad.",
        "immoral_action": f"Ann sells all {number}.",
        "immoral_consequence": "Bob is sad.",
    } | columns


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("boxed", "number", "unit"),
    [
        ("12", "12", ""), (r"\frac{3}{4}", "3/4", ""), (r"-\dfrac{3}{4}", "-3/4", ""), (r"\frac{-3}{4}", "-3/4", ""),
        (r"\frac34", "3/4", ""), (r"10,\!000", "10,000", ""), ("10{,}000", "10,000", ""), (r"\$18.90", "$18.90", ""),
        (r"45^\circ", "45", "degrees"), (r"12.5\%", "12.5", "%"), (r"6\text{ cm}^2", "6", "cm2"),
        (r"\frac{1}{2}\mbox{ inches}", "1/2", "inches"),
    ],
)  # fmt: skip
def test_a_boxed_number_is_read_exactly_and_passes_its_own_verifier(
    tmp_path: Path, boxed: str, number: str, unit: str
) -> None:
    answer = final_answer(rf"\boxed{{1}} and then \boxed{{{boxed}}}.")
    assert (answer.written, answer.number, answer.unit) == (boxed, number, unit)
    (intent,) = read_math([write(tmp_path / "math.jsonl", [problem(7, boxed)])]).intents
    assert self_check("math", intent.ground_truth, {"domain": "math", "role": "open"}) is None
    assert len({intent.question.right, *intent.question.wrong}) == 4


@pytest.mark.parametrize(
    "boxed", ["2x", "--5", "3i", r"2\sqrt{3}", "(1,2)", "1,2", r"\frac{\pi}{2}", r"11_2", r"\text{(A)}", "x=5"]
)
def test_a_boxed_expression_is_left_out_and_counted(tmp_path: Path, boxed: str) -> None:
    material = read_math([write(tmp_path / "math.jsonl", [problem(1, boxed), problem(2, "5")])])
    assert [intent.ground_truth for intent in material.intents] == ["5"]
    assert material.exclusions.counts == {"the final answer is not a number": 1}


def test_level_and_subject_are_kept_and_a_final_answer_beside_the_solution_is_not_the_solution(tmp_path: Path) -> None:
    rows = [problem(1, "5"), problem(2, "6", subject="Geometry", level=3, answer="6") | {"type": None}]
    extras = [intent.extras for intent in read_math([write(tmp_path / "math.jsonl", rows)]).intents]
    assert [(z["level"], z["subject"], z["answer"]) for z in extras] == [
        ("Level 1", "Algebra", "5"),
        ("3", "Geometry", "6"),
    ]


def test_the_moral_action_is_right(tmp_path: Path) -> None:
    single = [
        story(3, immoral_action="", label="1"),
        story(4, moral_action="", label="0"),
        story(5, immoral_action=None),
    ]
    pairs = [story(1), story(2, immoral_action="Ann brings all 2 back.")]
    material = read_moral([write(tmp_path / "stories.jsonl", [*pairs, *single])])
    both, kept, sold = material.intents
    assert (both.question.right, both.question.wrong) == ("Ann brings all 1 back.", ("Ann sells all 1.",))
    assert both.extras["rule"] == "You should keep promise 1."
    assert not {"glad", "sad"} & set(both.request.replace(".", "").split())
    assert [z.question.right for z in (kept, sold)] == ["It is acceptable.", "It is clearly wrong."]
    assert material.exclusions.counts == {"both actions are the same": 1, "empty label": 1}
    with pytest.raises(
        DataError, match=r"line 1, column 'label': 0 \(1 is moral, 0 is not\), but the action is in moral_a"
    ):
        read_moral([write(tmp_path / "odd.jsonl", [story(1, immoral_action="", label=0)])])


@pytest.mark.parametrize("domain", ["math", "moral"])
def test_build_and_check(tmp_path: Path, domain: str) -> None:
    words = ["ant", "bear", "cat", "dog", "elk", "fox", "goat", "hen", "ibis", "jay", "kite", "lark"]
    rows = [
        problem(n, str(n * n + 3), problem=" ".join(f"{word}{k}" for k in range(9))) for n, word in enumerate(words)
    ]
    if domain == "moral":
        rows = [story(n, situation=row["problem"]) for n, row in enumerate(rows)]
    source = write(tmp_path / "set.jsonl", rows)
    assert main(["data", domain, "--source", source, "--out", str(tmp_path)]) == 0
    files = [tmp_path / name for name in SPLIT_FILES]
    assert not [finding for finding in check_files(files).findings if finding.severity == "error"]
    assert {row["extra_info"]["domain"] for row in read_rows(files[0])} == {domain}
