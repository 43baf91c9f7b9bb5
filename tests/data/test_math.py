from __future__ import annotations

import json
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.support import SHARED, needs_shared
from verl_air.data.intents import ExcludeRow
from verl_air.data.math import distractors, final_answer, format_like, make_math_intent, parse_number

NUMBERS = {
    "72": 72, "1,234": 1234, "$1,234.50": Fraction(2469, 2), "-7": -7, "-$7": -7, "$-7": -7, "50%": 50,
    ".5": Fraction(1, 2), "3.": 3, "0.125": Fraction(1, 8), "-3/4": Fraction(-3, 4), "1 / 3": Fraction(1, 3),
    "1.5e-7": Fraction(3, 20_000_000), "6.02E+3": 6020, "\u22127": -7, "1,00,000": 100_000,
}  # fmt: skip
NO_NUMBERS = ["", "seven", "7 apples", "1 2", "--7", "1,23", "1/0", "1/2/3"]


@pytest.mark.parametrize("text", [*NUMBERS, *NO_NUMBERS])
def test_numbers_are_read_exactly_or_refused(text: str) -> None:
    assert parse_number(text) == NUMBERS.get(text)


@pytest.mark.parametrize(
    ("value", "pattern", "text"),
    [
        ("12345", "1,000", "12,345"), ("12345", "7", "12345"), ("1/3", "7", "1/3"), ("5/2", "7", "2.5"),
        ("100", "7", "100"), ("1/8", "7", "0.125"), ("-1/8", "1/2", "-1/8"), ("3", "1/2", "3"),
        ("1234.0625", "1,000", "1,234.0625"), ("1.5e-7", "1e5", "1.5e-7"), ("6.02e23", "6.02e23", "6.02e23"),
        ("0", "1e5", "0"), ("123456789012345678901234567890.123", "7", "123456789012345678901234567890.123"),
    ],
)  # fmt: skip
def test_numbers_are_written_like_the_answer_and_exactly(value: str, pattern: str, text: str) -> None:
    assert format_like(Fraction(value), pattern) == text
    assert parse_number(text) == Fraction(value)


@pytest.mark.parametrize(
    ("written", "truth", "right", "unit"),
    [
        ("0.125", "0.125", "0.125", None),
        ("-0.0625", "-0.0625", "-0.0625", None),
        ("2/3", "2/3", "2/3", None),
        ("$1,234.5678", "1234.5678", "1,234.5678", None),
        ("12.5%", "12.5", "12.5", "%"),
        ("7 apples", "7", "7", "apples"),
        ("12.25 km/h", "12.25", "12.25", "km/h"),
        ("3 m^2", "3", "3", "m^2"),
        ("1.5e-7", "0.00000015", "1.5e-7", None),
    ],
)
def test_the_ground_truth_is_the_source_s_number_to_the_last_digit(
    written: str, truth: str, right: str, unit: str | None
) -> None:
    intent = make_math_intent("How much is it?", f"It is so much.\n#### {written}", seed=0)
    assert (intent.ground_truth, intent.question.right, intent.extras.get("unit")) == (truth, right, unit)
    assert intent.extras["answer"] == written
    values = {parse_number(text) for text in (*intent.question.wrong, intent.question.right)}
    assert len(values) == 4


def test_distractors_come_from_the_solution() -> None:
    solution = "3*12=<<3*12=36>>36\n36-5=<<36-5=31>>31\n#### 31"
    found = distractors("Ada has 3 bags of 12 plums and eats 5.", solution, "31", random.Random(0), n=3)
    assert "36" in found, "the result on the way"
    assert set(found) & {"41", "180"}, "another operation in the last step"


NUMBER = st.one_of(
    st.integers(-50, 10**6).map(str),
    st.decimals(0, 1000, places=2).map(str),
    st.decimals(0, 2, places=6).map(lambda number: f"{number:f}"),
    st.fractions(0, 50, max_denominator=30).map(str),
    st.decimals("0.1", 10, places=2).map(lambda number: f"{number}e-9"),
)


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
    [
        *((solution, "no final answer") for solution in ("It is 7.", "####")),
        *((f"#### {text}", "not a number") for text in ("about seven", "7 or 8", "7 apples and 3 pears", "10:30")),
    ],
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
        answer = final_answer(row["answer"]).written
        found = distractors(row["question"], row["answer"], answer, random.Random(0), n=3)
        values = {parse_number(text) for text in found}
        assert len(values) == 3
        assert parse_number(answer) not in values
