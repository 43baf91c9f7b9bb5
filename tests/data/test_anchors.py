from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_air.data.anchors import (
    LETTERS,
    MULTIPLE_CHOICE,
    AnchorFormat,
    BalancedPositions,
    Question,
    anchor_format_names,
    get_anchor_format,
    register_anchor_format,
)
from verl_air.errors import DataError
from verl_air.rewards import self_check

QUESTION = Question(
    case="A cat sits on the mat.",
    ask="What sits there?",
    right="A cat.",
    wrong=("A dog.", "A cow.", "A hen."),
    true_claim="A cat sits there.",
    false_claim="A dog sits there.",
    label_ask="Is it a cat?",
    right_label="YES",
    wrong_labels=("NO",),
)


@pytest.mark.parametrize("name", ["multiple_choice", "true_false", "label"])
def test_gold_answers_pass_their_verifier_at_every_position(name: str) -> None:
    chosen = get_anchor_format(name)
    seen = set()
    for position in range(chosen.positions(QUESTION)):
        anchor = chosen.render(QUESTION, position, random.Random(0))
        info = {"domain": "lab", "role": "anchor", "extras": json.dumps({"choices": anchor.choices})}
        assert self_check(chosen.verifier, anchor.ground_truth, info) is None
        assert QUESTION.case in anchor.text
        seen.add((anchor.text, anchor.what))
    assert len(seen) == chosen.positions(QUESTION), "no two positions look the same"


@given(st.integers(0, 3), st.integers())
def test_the_right_choice_stands_under_its_letter(position: int, seed: int) -> None:
    anchor = MULTIPLE_CHOICE.render(QUESTION, position, random.Random(seed))
    assert anchor.ground_truth == LETTERS[position]
    assert f"{anchor.ground_truth}. {QUESTION.right}" in anchor.text
    assert sorted(anchor.choices) == sorted((QUESTION.right, *QUESTION.wrong))


@given(st.integers(1, 6), st.integers(0, 60), st.integers())
def test_positions_are_even(n: int, draws: int, seed: int) -> None:
    positions = BalancedPositions(random.Random(seed))
    counts = Counter(positions.draw("key", n) for _ in range(draws))
    assert all(draws // n <= counts[place] <= -(-draws // n) for place in range(n))
    assert sum(counts.values()) == draws


def test_the_registry_refuses_a_taken_and_an_unknown_name() -> None:
    with pytest.raises(DataError, match="already registered"):
        register_anchor_format(AnchorFormat("label", "x", lambda question: 1, MULTIPLE_CHOICE.render))
    with pytest.raises(DataError, match="no anchor format 'essay'; registered: label, multiple_choice"):
        get_anchor_format("essay")
    assert register_anchor_format(MULTIPLE_CHOICE) is MULTIPLE_CHOICE
    assert "true_false" in anchor_format_names()


def test_a_question_without_labels_says_so() -> None:
    bare = Question("c", "a", "r", ("w",), "t", "f")
    with pytest.raises(DataError, match="leave the anchor format 'label' out"):
        get_anchor_format("label").render(bare, 0, random.Random(0))
