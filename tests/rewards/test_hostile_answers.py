"""No answer makes a rule stumble: not at random, not by its length, not by bait for a regular expression."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rewards.support import OPTIONS, RULES, assert_sound, respond, row, score

# fmt: off
FRAGMENTS = [
    "<think>", "</think>", "<answer>", "</answer>", "<Answer>", "\uff1canswer\uff1e", "\\boxed{", "}", "{", "\\text{",
    "\\", "$", "A", "B", "(B)", " or ", "not ", "true", "false", "The answer is ", "Harmful", "I'm sorry", "\x00",
    "\u200b", "\u202e", "\ud800", "\uff22", "\u0412", "\n", "  ", "*", ".", "ß", "İ", "1", "9^9",
]
# fmt: on
PIECES = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8), max_size=12).map("".join)
RESPONSES = PIECES | PIECES.map(respond) | PIECES.map(lambda text: respond(f"\\boxed{{{text}}}"))
CASES = st.tuples(st.sampled_from(sorted(RULES)), RESPONSES, st.sampled_from(["lab", "math"]))
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


def check(case: tuple[str, str, str]) -> None:
    name, response, domain = case
    result = score(name, response, RULES[name], row(domain, choices=OPTIONS))
    assert_sound(result)
    assert result["abstained"] == 0.0


@settings(max_examples=1000, deadline=None, suppress_health_check=QUIET)
@given(CASES)
def test_no_output_makes_a_rule_stumble(case: tuple[str, str, str]) -> None:
    check(case)


def shuffled(seed: int, texts: list[str], n: int) -> Iterator[str]:
    """Responses put together at random; hypothesis chooses the seed and some texts of its own."""
    rng = random.Random(seed)
    pieces = [*FRAGMENTS, *texts]
    for _ in range(n):
        text = "".join(rng.choices(pieces, k=rng.randrange(12)))
        yield rng.choice([text, respond(text), respond(f"\\boxed{{{text}}}")])


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=QUIET)
@given(st.integers(0, 2**32), st.lists(st.text(min_size=1, max_size=12), max_size=8), st.sampled_from(["lab", "math"]))
def test_a_hundred_thousand_outputs_make_no_rule_stumble(seed: int, texts: list[str], domain: str) -> None:
    for response in shuffled(seed, texts, 50):
        for name in RULES:
            check((name, response, domain))


MEGABYTE = 1_000_000
LONG = {
    "letters": respond("B" * MEGABYTE),
    "blanks": respond(" " * MEGABYTE + "B or A"),
    "brackets": respond("(" * MEGABYTE + "B"),
    "open boxes": respond("\\boxed{" * (MEGABYTE // 7)),
    "nested boxes": respond("\\boxed{" * (MEGABYTE // 8) + "B" + "}" * (MEGABYTE // 8)),
    "nested text": respond("\\boxed{" + "\\text{" * (MEGABYTE // 7) + "B" + "}" * (MEGABYTE // 7) + "}"),
    "open thoughts": "<think>" * (MEGABYTE // 7),
    "half-closed": "<think>a</think>" + "<answer" * (MEGABYTE // 7),
    "stars": respond("*" * MEGABYTE + "!"),
    "prefix bait": respond("the answer is " * (MEGABYTE // 14)),
    "option bait": respond("the correct answer is option : " * (MEGABYTE // 31) + "?"),
    "quotes": respond("' \" " * (MEGABYTE // 4)),
}


# Of processor time. These take milliseconds; a rule that is quadratic in a megabyte would take hours.
PATIENCE_S = 20.0


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
@pytest.mark.parametrize("name", sorted(RULES))
def test_a_megabyte_is_read_in_no_time_and_earns_nothing(name: str, text: str) -> None:
    start = time.process_time()
    result = score(name, text, RULES[name], row(choices=OPTIONS))
    assert time.process_time() - start < PATIENCE_S
    assert_sound(result)
    if name not in ("format", "refusal_keywords"):
        assert result["acc"] == 0.0


@pytest.mark.parametrize("size", [300, 600, 990])
@pytest.mark.parametrize("bait", ["(", "*", " ", "the answer is ", "answer option ", "\\text{", '"', "[ ", "option: "])
def test_regular_expressions_are_not_caught_by_bait(bait: str, size: int) -> None:
    """Just below the length at which an answer is not even read."""
    start = time.process_time()
    for end in ("", "?", "B", "B?", "BB"):
        score("multiple_choice", respond((bait * size)[:size] + end), "B", row(choices=OPTIONS))
    assert time.process_time() - start < PATIENCE_S
