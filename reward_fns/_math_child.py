"""What the child process of ``math`` runs. It is killed when its time is up, so nothing here watches a clock."""

from __future__ import annotations

from typing import Any

from math_verify import parse, verify
from sympy import false

_NEGATIONS = ("\\neq", "\\ne ", "\\not", "\u2260", "!=")


def compare(truth: str, answer: str) -> bool | None:
    """Whether two mathematical texts are equal; ``None`` if the ground truth cannot be read.

    Two liberties of math-verify are taken back: it drops a negation ("\\neq 42" would equal 42), and of an equation it
    reads the last side alone ("5 = 42" would too).
    """
    gold = _read(truth)
    if not gold:
        return None
    if any(sign in answer and sign not in truth for sign in _NEGATIONS):
        return False
    read = _read(answer)
    return not any(_is_false_claim(item) for item in read) and bool(verify(gold, read, timeout_seconds=None))


def _is_false_claim(item: Any) -> bool:
    """An equation or inequality without unknowns that does not hold."""
    return getattr(item, "is_Relational", False) and not item.free_symbols and item.doit() == false


def _read(text: str) -> list[Any]:
    """The expression in a text that is nothing but mathematics: a box says so to the parser."""
    inside = text.strip().removeprefix("$").removesuffix("$")
    return parse(f"\\boxed{{{inside}}}", parsing_timeout=None)
