from __future__ import annotations

import json
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.support import SHARED, needs_shared
from verl_air.data.intents import ExcludeRow
from verl_air.data.math import distractors, final_answer, format_like, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        ("1,234", 1234),
        ("$1,234.50", Fraction(2469, 2)),
        ("-7", -7),
        ("-$7", -7),
        ("$-7", -7),
        ("50%", 50),
        (".5", Fraction(1, 2)),
        ("3.", 3),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "seven", "1/2", "7 apples", "1 2", "--7"])
def test_what_is_no_number_is_refused(text: str) -> None:
    assert parse_number(text) is None


def test_numbers_are_written_like_the_answer() -> None:
    assert format_like(Fraction(12345), "1,000") == "12,345"
    assert format_like(Fraction(12345), "7") == "12345"
    assert format_like(Fraction(1, 3), "7") == "0.33"
    assert format_like(Fraction(5, 2), "7") == "2.5"
    assert format_like(Fraction(100), "7") == "100"


def test_distractors_come_from_the_solution() -> None:
    found = distractors(
        "Ada has 3 bags of 12 plums and eats 5.",
        "3*12=<<3*12=36>>36\n36-5=<<36-5=31>>31\n#### 31",
        "31",
        random.Random(0),
        n=3,
    )
    assert "36" in found, "the result on the way"
    assert set(found) & {"41", "180"}, "another operation in the last step"


NUMBER = st.one_of(st.integers(-50, 10**6).map(str), st.decimals(0, 1000, places=2).map(str))


@given(NUMBER, st.lists(st.integers(0, 5000), max_size=5), st.integers(), st.integers(1, 5))
def test_distractors_differ_from_the_answer_and_from_each_other(
    answer: str, numbers: list[int], seed: int, n: int
) -> None:
    problem = " and ".join(map(str, numbers))
    steps = "\n".join(f"<<{a}+1={a + 1}>>" for a in numbers)
    found = distractors(problem, f"{steps}\n#### {answer}", answer, random.Random(seed), n=n)
    values = [parse_number(text) for text in found]
    assert len(set(values)) == len(found) == n
    assert parse_number(answer) not in values
    if parse_number(answer) >= 0:
        assert min(values) >= 0
    if parse_number(answer).denominator == 1:
        assert all(value.denominator == 1 for value in values)


@pytest.mark.parametrize(
    ("solution", "reason"),
    [("It is 7.", "no final answer"), ("####", "no final answer"), ("#### about seven", "not a number")],
)
def test_solutions_without_a_numeric_answer_are_left_out(solution: str, reason: str) -> None:
    with pytest.raises(ExcludeRow, match=reason):
        final_answer(solution)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "test"])
def test_every_problem_of_gsm8k_has_three_distractors(name: str) -> None:
    for line in (SHARED / "gsm8k" / f"{name}.jsonl").read_text().splitlines():
        row = json.loads(line)
        answer, _ = final_answer(row["answer"])
        found = distractors(row["question"], row["answer"], answer, random.Random(0), n=3)
        values = {parse_number(text) for text in found}
        assert len(values) == 3
        assert parse_number(answer) not in values
