from __future__ import annotations

import pytest

from verl_air.data.framings import BOXED_DOMAINS, with_instruction
from verl_air.data.schema import ChatMessage
from verl_air.rewards import FormatRule


def test_the_instruction_joins_the_last_user_message_alone() -> None:
    messages = [ChatMessage(role="system", content="s"), ChatMessage(role="user", content="Hello  \n")]
    first, last = with_instruction(messages, "your reply", "safety")
    assert first == messages[0]
    assert last["content"].startswith("Hello\n\nFirst think inside <think> and </think>.")
    assert "write your reply inside <answer> and </answer>" in last["content"]
    assert "boxed" not in last["content"]


def test_boxed_domains_are_those_of_the_format_reward() -> None:
    assert set(FormatRule().boxed) == BOXED_DOMAINS
    text = with_instruction([ChatMessage(role="user", content="1 + 1?")], "the result", "math")[0]["content"]
    assert r"write the result, as \boxed{...}, inside <answer>" in text


def test_a_prompt_that_ends_with_the_assistant_is_refused() -> None:
    with pytest.raises(ValueError, match="the last message must be the user's"):
        with_instruction([ChatMessage(role="assistant", content="a")], "x", "math")
