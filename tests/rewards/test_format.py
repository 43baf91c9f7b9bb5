from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_air.errors import ConfigError
from verl_air.rewards import FormatRule, extract_answer, last_boxed

GOOD = {
    "<think>a</think><answer>B</answer>": "B",
    "  <think>a\n\nb</think> \n <answer>\n B \n</answer>\n": "B",
    "<think> a < b </think><answer> <b>B</b> </answer>": "<b>B</b>",
}
# fmt: off
BAD = [
    "", "B", "<answer>B</answer>", "<think>a</think>", "<think></think><answer>B</answer>",
    "<think> \n</think><answer>B</answer>", "<think>a</think><answer> </answer>", "<think>a</think><answer>B",
    "<think>a<answer>B</answer>", "<think>a</think>so<answer>B</answer>", "well <think>a</think><answer>B</answer>",
    "<think>a</think><answer>B</answer> indeed", "<think>a</think><answer>A</answer><answer>B</answer>",
    "<think>a <answer>A</answer></think><answer>B</answer>", "<think>a <answer>B</answer></think>",
    "<think>a</think><answer><answer>B</answer></answer>", "<think><think>a</think></think><answer>B</answer>",
    "<answer>B</answer><think>a</think>", "</think>a<think></answer>B<answer>", "<THINK>a</THINK><ANSWER>B</ANSWER>",
    "<think >a</think><answer>B</answer>",
    "\uff1cthink\uff1ea\uff1c/think\uff1e\uff1canswer\uff1eB\uff1c/answer\uff1e",
]
# fmt: on


@pytest.mark.parametrize(("response", "answer"), [*GOOD.items(), *((text, None) for text in BAD)])
def test_the_answer_of_a_response(response: str, answer: str | None) -> None:
    assert extract_answer(response) == answer


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from(["", " ", "\n", "\t\n "]))
def test_whatever_stands_inside_is_found(reasoning: str, answer: str, gap: str) -> None:
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    expected = None if any(tag in reasoning + answer for tag in tags) else answer.strip() or None
    if not reasoning.strip():
        expected = None
    assert extract_answer(f"{gap}<think>{reasoning}</think>{gap}<answer>{answer}</answer>{gap}") == expected


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{4}", "4"),
        (r"first \boxed{3}, no: \boxed{4}", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{B}}", r"\text{B}"),
        (r"\boxed{1", None),
        (r"\boxed{", None),
        ("boxed{1}", None),
        (r"\boxed{1} and \boxed{2", None),
        ("", None),
    ],
)
def test_last_boxed(text: str, inside: str | None) -> None:
    assert last_boxed(text) == inside


@pytest.mark.parametrize(
    ("settings", "domain", "response", "answer"),
    [
        ({}, "math", "<think>a</think><answer>4</answer>", None),
        ({}, "math", r"<think>a</think><answer>\boxed{}</answer>", None),
        ({}, "math", r"<think>a</think><answer>so \boxed{4}</answer>", r"so \boxed{4}"),
        ({}, "safety", "<think>a</think><answer>4</answer>", "4"),
        ({"prefill": "<think>\n"}, "safety", "a</think><answer>4</answer>", "4"),
    ],
)
def test_a_domain_may_want_a_box_and_a_chat_template_may_begin_the_response(
    settings: dict[str, object], domain: str, response: str, answer: str | None
) -> None:
    assert FormatRule.from_mapping(settings).parse(response, domain) == answer


def test_time_is_linear_in_the_length() -> None:
    """A hundred times as long may take some hundred times as long; a quadratic rule would take 10,000 times."""

    def seconds(n: int) -> float:
        texts = ["<think>" * n, "<think>a</think>" + " " * n + "x", "\\boxed{" * n, "\\boxed{" + "{" * n]
        start = time.process_time()
        for text in texts:
            extract_answer(text)
            last_boxed(text)
        return time.process_time() - start

    assert seconds(100_000) < 1500 * max(seconds(1000), 1e-4)


@pytest.mark.parametrize(
    "settings", [{"rigth": 1.0}, {"right": "much"}, {"right": -2.0}, {"boxed": "math"}, {"boxed": {"math": True}}]
)
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FormatRule.from_mapping(settings)
