"""The rules of the anchors: what they take and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rewards.support import OPTIONS, respond, row, score
from verl_air.errors import ConfigError, RewardError
from verl_air.rewards import self_check

# fmt: off
RIGHT_LETTER = [
    "B", "b", " B ", "(B)", "[B]", "B.", "B)", "**B**", "*B*", '"B"', "Answer: B", "The answer is B.",
    "the correct answer is (B)", "Option B", "Choice: B", r"\boxed{B}", r"\boxed{\text{B}}",
    r"\boxed{\text{\textbf{B}}}", r"\boxed{(B)}", r"$\boxed{B}$", r"First \boxed{A}. On reflection \boxed{B}",
    "B. London", "B) London", "(B) london.",
]
WRONG_LETTER = [  # among them B's look-alikes: Cyrillic, Greek, full-width, mathematical bold, accented, circled
    "A", "A or B", "B or A", "A, B", "A/B", "A and B", "AB", "BB", "B B", "not B", "Not B.", "anything but B", "B?",
    "B is wrong", "Because I say so", "By all means", "B. Paris", "B. Lond", "\u0412", "\u0392", "\uff22",
    "\U0001d401", "B\u0301", "Ⓑ", r"\boxed{A}", r"\boxed{B} \boxed{A}", r"\boxed{B", r"\boxed{A or B}", r"\boxed{}B",
    "2", "", "the answer is", "B\x00", "I think the answer to this is probably B",
]
# fmt: on


WORDS = ["true", "True.", "TRUE", "**true**", r"\boxed{True}", r"\boxed{\text{true}}", " true\n"]
NO_WORDS = [
    "not true", "true or false", "truely", "t", "yes", "1", "untrue", "true false", "~true", "\uff54rue", "", "false",
    r"\boxed{False} \boxed{True}", r"\boxed{true}. Actually false.",
]  # fmt: skip
TEXTS = ["harmful", "Harmful.", " HARMFUL ", r"\boxed{harmful}", '"harmful"']
NO_TEXTS = ["not harmful", "harmful or harmless", "harmfull", "harm ful", "h\u0430rmful", ""]
RULES = {
    "multiple_choice": ("B", RIGHT_LETTER, WRONG_LETTER),
    "true_false": ("true", WORDS, NO_WORDS),
    "exact_match": ("harmful", TEXTS, NO_TEXTS),
}


@pytest.mark.parametrize(
    ("name", "answer", "acc"),
    [
        (name, answer, acc)
        for name, (_, right, wrong) in RULES.items()
        for acc, answers in ((1.0, right), (0.0, wrong))
        for answer in answers
    ],
)
def test_what_a_rule_accepts_and_refuses(name: str, answer: str, acc: float) -> None:
    assert score(name, respond(answer), RULES[name][0], row(choices=OPTIONS))["acc"] == acc


@pytest.mark.parametrize(
    ("truth", "answer", "acc"),
    [
        *((("5", answer, 0.0)) for answer in ("> 5", ">  5", "> **5**", "- 5", "- `5`", "+ 5", "~5", "$- 5$")),
        *((("5", answer, 1.0)) for answer in ("5", "\u2022 5", "* 5", "* **5**")),
        ("- 5", "- 5", 1.0),
        *((("yes", answer, 1.0)) for answer in ("- yes", "> yes", "> **yes**")),
    ],
)
def test_a_sign_before_a_number_is_no_bullet(truth: str, answer: str, acc: float) -> None:
    assert score("exact_match", respond(answer), truth)["acc"] == acc


@pytest.mark.parametrize("answer", WORDS)
def test_the_other_word_is_wrong(answer: str) -> None:
    assert score("true_false", respond(answer), "false")["acc"] == 0.0


def test_only_offered_letters_count() -> None:
    assert score("multiple_choice", respond("E. coli"), "D", row(choices=OPTIONS))["acc"] == 0.0
    assert score("multiple_choice", respond("D. E. coli"), "D", row(choices=OPTIONS))["acc"] == 1.0
    with pytest.raises(RewardError, match="'E' is not one of the letters 'ABCD'"):
        score("multiple_choice", respond("E"), "E", row(choices=OPTIONS))
    assert score("multiple_choice", respond("E"), "E", row(choices=[*OPTIONS, "Oslo"]))["acc"] == 1.0
    assert score("multiple_choice", respond("E"), "E", letters="ABCDE")["acc"] == 1.0


def test_an_empty_ground_truth_is_matched_by_nothing() -> None:
    assert score("exact_match", respond("."), "")["acc"] == 0.0
    assert score("exact_match", respond(r"\boxed{}"), "")["acc"] == 0.0


def test_refusal_keywords_can_be_hacked_as_the_stress_test_wants() -> None:
    assert score("refusal_keywords", "I\u2019m sorry. Here is how to do it:", "")["acc"] == 1.0
    assert score("refusal_keywords", "No.", "")["acc"] == 0.0


def test_choices_may_be_lettered_and_letters_may_stand_alone() -> None:
    assert score("multiple_choice", respond("Y. no"), "Y", row(choices={"X": "yes", "Y": "no"}))["acc"] == 1.0
    assert score("multiple_choice", respond("A"), "Y", row(letters="XY"))["acc"] == 0.0
    assert score("multiple_choice", respond("Y"), "Y", row(letters="XY"))["acc"] == 1.0


def test_a_row_may_name_its_own_rule() -> None:
    for name, truth, wrong in (("true_false", "true", "false"), ("exact_match", "harmful", "no"), ("math", "2", "3")):
        extra = row("math", verifier=name)
        assert score("row_verifier", respond(f"\\boxed{{{truth}}}"), truth, extra, right=2.0)["task_reward"] == 2.0
        assert score("row_verifier", respond(f"\\boxed{{{wrong}}}"), truth, extra, wrong=-3.0)["task_reward"] == -3.0
    for extras in ({}, {"verifier": "verdict_judge"}, {"verifier": "safety_judge"}, {"verifier": "row_verifier"}):
        with pytest.raises((RewardError, ConfigError)):
            score("row_verifier", respond("x"), "x", row(**extras))


@pytest.mark.parametrize("domain", ["lab", "math"])
@pytest.mark.parametrize(
    ("name", "truths"),
    [
        ("multiple_choice", "ABCD"),
        ("true_false", ("true", "false", "True")),
        ("exact_match", ("harmful", "two words", "naïve")),
        ("format", ("",)),
        ("refusal_keywords", ("",)),
        ("math", ("42", r"\frac{1}{2}", "x+1", "-3.5", "1,000")),
    ],
)
def test_each_rule_accepts_its_own_gold_and_refuses_a_wrong_answer(name: str, truths: Any, domain: str) -> None:
    for truth in truths:
        assert self_check(name, truth, row(domain)) is None


def test_a_gold_answer_that_its_rule_refuses_is_told() -> None:
    assert (
        self_check("exact_match", "", row())
        == "exact_match: the gold answer '\\\\boxed{}' scores -1, not the maximum 1.25"
    )
