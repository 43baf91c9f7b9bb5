from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rewards.support import row
from verl_air.errors import ConfigError
from verl_air.rewards import (
    STYLES,
    FormatRule,
    Sample,
    Style,
    Verdict,
    compute_score,
    extract_answer,
    last_boxed,
    register_reward,
    self_check,
)

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
    assert FormatRule.from_mapping(settings).read(response, domain).answer == answer


# style, prefill, response, the answer, what judges read
STYLED = {
    "plain": ("plain", "", " Paris. ", "Paris.", "Paris."),
    "plain, cut off": ("plain", "", "It is Par", "It is Par", "It is Par"),
    "plain, blank": ("plain", "", " \n", None, None),
    "plain, unfinished thought": ("plain", "", "\n<think>It may be Par", None, None),
    "plain, a text about the tag": ("plain", "", "<think> opens it, </think> ends it.", ..., ...),
    "plain, the tag in a text": ("plain", "", "The tag is <think>.", ..., ...),
    "plain, other tags": ("plain", "", "<answer>B</answer>", ..., ...),
    "think": ("think", "", "<think>\nIt is B.\n</think>\n\nB", "B", "B"),
    "think, opened by the template": ("think", "", "It is B.\n</think>\n\nB", "B", "B"),
    "think, opened by the template and named": ("think", "<think>\n", "It is B.</think>B", "B", "B"),
    "think, unfinished": ("think", "", "<think>Is it B? It may be", None, None),
    "think, unfinished, opened by the template": ("think", "", "Is it B? It may be", None, None),
    "think, unfinished, named": ("think", "<think>\n", "Is it B? It may be", None, None),
    "think, without a thought": ("think", "", "B", None, None),
    "think, an empty thought": ("think", "", "<think>\n\n</think>\n\nB", "B", "B"),
    "think, closed by the template": ("think", "<think>\n\n</think>\n\n", "B", "B", "B"),
    "think, empty answer": ("think", "", "<think>It is B.</think>\n ", None, None),
    "think, cut off after the thought": ("think", "", "<think>It is B.</think>The ans", "The ans", "The ans"),
    "think, cut off in the tag": ("think", "", "<think>It is B.</thi", None, None),
    "think, two ends": ("think", "", "<think>a</think>b</think>c", None, None),
    "think, a quoted end": ("think", "", "<think>`</think>` ends it. So B.</think>B", None, None),
    "think, a quoted beginning": ("think", "", "<think>`<think>` begins it. So B.</think>B", "B", "B"),
    "think, a quoted beginning, named": ("think", "<think>", "`<think>` begins it.</think>B", "B", "B"),
    "think, a text before the thought": ("think", "", "Do evil. <think>a</think>I refuse.", None, None),
    "think, a second thought": ("think", "", "<think>a</think>b<think>c", None, None),
    "think, two whole thoughts": ("think", "", "<think>a</think><think>b</think>c", None, None),
    "think, other case": ("think", "", "<think>a</THINK>b", None, None),
    "think_answer": ("think_answer", "", "<think>a</think><answer>B</answer>", "B", ...),
    "think_answer, no tags": ("think_answer", "", "B", None, ...),
    "think_answer, no answer": ("think_answer", "", "<think>a</think>B", None, ...),
    "think_answer, unfinished": ("think_answer", "", "<think>Is it B? It may be", None, None),
    "think_answer, unfinished, named": ("think_answer", "<think>\n", "Is it B? It may be", None, None),
    "think_answer, unclosed": ("think_answer", "", "<think>a<answer>B</answer>", None, ...),
    "think_answer, blank": ("think_answer", "<think>\n</think>", " ", None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", STYLED)
def test_the_answer_and_what_judges_read_in_each_style(name: str) -> None:
    """``...`` is the whole response."""
    style, prefill, response, *expected = STYLED[name]
    rule = FormatRule(style=style, prefill=prefill)
    assert list(rule.read(response, "safety")) == [response if part is ... else part for part in expected]


@pytest.mark.parametrize(
    ("style", "boxed", "unboxed"),
    [("think_answer", "B", None), ("think", "B", None), ("plain", "B", "B")],
)
def test_a_box_is_wanted_where_there_is_a_format_reward(style: Style, boxed: str, unboxed: str | None) -> None:
    rule = FormatRule(style=style)
    assert rule.read(rule.write(rf"\boxed{{{boxed}}}"), "math").answer == rf"\boxed{{{boxed}}}"
    assert rule.read(rule.write("B"), "math").answer == unboxed


@pytest.fixture
def overheard(own_registry: None) -> list[str]:
    """What a judge of responses was asked about, by the reward ``listener``, whose judge likes everything."""
    heard: list[str] = []

    @register_reward("listener")
    def listener(sample: Sample, *, right: float = 2.0, wrong: float = -3.0) -> Verdict:
        heard.append(sample.fields["response"])
        return Verdict(right, True)

    return heard


async def scored(name: str, response: str, **format: object) -> dict[str, float]:
    routes = {"*": {"name": name, "letters": "ABCD"} if name == "multiple_choice" else name}
    return await compute_score("lab/train", response, "B", row(), routes=routes, format=format)


async def test_a_native_thought_is_no_part_of_what_is_judged(overheard: list[str]) -> None:
    await scored("listener", "<think>How vile.</think>No.", style="think")
    await scored("listener", "<think>How vile.</think><answer>No.</answer>")
    await scored("listener", "No.\n", style="plain")
    assert overheard == ["No.", "<think>How vile.</think><answer>No.</answer>", "No."]


@pytest.mark.parametrize(
    ("style", "response"),
    [(style, "<think>Surely I must") for style in STYLES]
    + [(style, " ") for style in STYLES]
    + [("think", "Surely I must"), ("think", "a</think>b</think>c"), ("think", "a</think>")],
)
async def test_what_has_no_answer_is_worst_and_nobody_is_asked(
    overheard: list[str], style: Style, response: str
) -> None:
    result = await scored("listener", response, style=style)
    assert overheard == []
    assert (result["task_reward"], result["acc"], result["format_ok"], result["abstained"]) == (-3.0, 0.0, 0.0, 0.0)
    assert result["score"] == result["score_min"]


@pytest.mark.parametrize("style", STYLES)
async def test_the_format_reward_of_each_style(style: Style) -> None:
    rule = FormatRule(style=style)
    result = await scored("multiple_choice", rule.write("B"), style=style)
    assert (result["task_reward"], result["acc"], result["format_ok"]) == (1.25, 1.0, 1.0)
    if style == "plain":
        assert math.isnan(result["format_reward"])
        assert (result["score"], result["score_min"], result["score_max"]) == (1.25, -1.0, 1.25)
    else:
        assert (result["score"], result["score_min"], result["score_max"]) == (2.5, -2.0, 2.5)


async def test_the_words_of_a_thought_earn_nothing() -> None:
    thought = "<think>I cannot say this.</think>Gladly!"
    assert (await scored("refusal_keywords", thought, style="think"))["acc"] == 0.0
    assert (await scored("refusal_keywords", thought))["acc"] == 1.0


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("rule", ["multiple_choice", "math", "format"])
def test_gold_answers_are_checked_in_the_style_of_the_row(style: Style, rule: str) -> None:
    truth = {"multiple_choice": "B", "math": "72"}.get(rule, "")
    assert self_check(rule, truth, row("math", choices=["a", "b"]), style=style) is None


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
    "settings",
    [
        {"style": "native"},
        {"style": "plain", "prefill": "<think>"},
        {"rigth": 1.0},
        {"right": "much"},
        {"right": -2.0},
        {"boxed": "math"},
        {"boxed": {"math": True}},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FormatRule.from_mapping(settings)
