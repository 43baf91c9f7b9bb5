"""The one place where prompts say how a response must look; :mod:`verl_air.rewards.format` checks it."""

from __future__ import annotations

from collections.abc import Sequence

from verl_air.data.schema import Message

BOXED_DOMAINS = frozenset({"math"})
"""Domains whose answer also stands in a box (the paper's format reward for mathematics)."""

INSTRUCTION = (
    "First think inside <think> and </think>. Then write {what} inside <answer> and </answer>. "
    "Write nothing outside these tags."
)


def with_instruction(messages: Sequence[Message], what: str, domain: str) -> list[Message]:
    """Append the format instruction to the last user message.

    It joins a user message, not a system message: not every chat template has the latter.

    Args:
        messages: the last one is the user's.
        what: what the answer is, e.g. ``"only the letter of your choice"``.
        domain: decides whether the answer is boxed.
    """
    if domain in BOXED_DOMAINS:
        what = f"{what}, as \\boxed{{...}},"
    *before, last = messages
    if last["role"] != "user":
        raise ValueError(f"the last message must be the user's, not {last['role']!r}'s")
    text = f"{last['content'].rstrip()}\n\n{INSTRUCTION.format(what=what)}"
    return [*before, Message(role="user", content=text)]
