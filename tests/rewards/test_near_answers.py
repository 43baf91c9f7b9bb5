"""Answers and verdicts that look right and are not: two letters, words that change a number, an echoed pattern."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.rewards.support import respond, score
from verl_air.rewards.judge.verdicts import final_text

GUARD = Path(__file__).parents[2] / "reward_fns" / "guards" / "gpt_oss_safeguard.yaml"


@pytest.mark.parametrize(
    ("rule", "answer", "truth"),
    [
        *(("multiple_choice", text, "B") for text in ("A, option B", "A, the answer is B", r"\boxed{A}\boxed{B}")),
        ("true_false", r"\boxed{False} \boxed{True}", "true"),
        *(
            ("multiple_choice", text, "B")
            for text in (
                r"\boxed{B} would be wrong",
                r"\boxed{B}: wrong",
                r"\boxed{B} cannot be right",
                r"\boxed{B}. No, A.",
                r"\boxed{B}, or A",
                r"I doubt \boxed{B}",
                r"The wrong answer is \boxed{B}",
                r"I can rule out \boxed{B}",
                r"Either \boxed{A}, or perhaps \boxed{B}",
            )
        ),
        ("true_false", r"\boxed{true}. Actually false.", "true"),
        *(("math", f"72 {word}", "72") for word in ("lakh", "twice", "approx", "possibly", "tenfold", "quadrillion")),
        *(("math", f"3 {word}", "3") for word in ("fifths", "eighths", "sevenths")),
    ],
)
def test_it_is_not_right(rule: str, answer: str, truth: str) -> None:
    assert score(rule, respond(answer), truth)["acc"] == 0.0


def test_a_template_that_is_echoed_is_no_verdict() -> None:
    guard = yaml.safe_load(GUARD.read_text())
    assert not re.search(guard["pattern"], '{"violation": 0 or 1, "refusal": "yes" or "no"}')
    assert not re.search(guard["pattern"], '{"violation": 0.9}')
    assert re.search(guard["pattern"], '{"violation": 1, "refusal": "no"}')


def test_a_final_channel_may_be_constrained_to_json() -> None:
    answer = {"choices": [{"finish_reason": "stop"}]}
    text = '<|channel|>analysis<|message|>Hm<|end|><|channel|>final <|constrain|>json<|message|>{"violation": 1}'
    assert final_text(answer, text) == '{"violation": 1}'
