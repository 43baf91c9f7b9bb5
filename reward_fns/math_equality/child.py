"""What the child process of ``math`` runs. It is killed when its time is up, so nothing here watches a clock."""

from __future__ import annotations

import re
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Expr, I, false

_DIGITS = 30
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\u00b0")


def compare(truth: str, answer: str) -> bool:
    """Whether two mathematical texts, which are not the same text, are equal. What cannot be read equals nothing.

    Liberties of math-verify that are taken back (tests/rewards/test_math_faults.py shows each): it compares numbers
    after rounding to six decimals, of an equation it may read the last side alone, and where it cannot read a formula
    it takes a number out of the middle of it.
    """
    gold, read = _read(truth), _read(answer)
    if not gold or not read or any(map(_is_false_claim, read)):
        return False
    return bool(verify(gold, read, timeout_seconds=None, allow_set_relation_comp=True)) and not _differ(
        gold[0], read[0]
    )


def _is_false_claim(item: Any) -> bool:
    """An equation or inequality without unknowns that does not hold."""
    return getattr(item, "is_Relational", False) and not item.free_symbols and item.doit() == false


def _differ(gold: Any, read: Any) -> bool:
    """Whether two numbers are unequal in their first digits, however small they are."""
    if not all(isinstance(item, Expr) and not item.free_symbols for item in (gold, read)):
        return False
    mine, theirs = gold.evalf(_DIGITS), read.evalf(_DIGITS)
    if not (mine.is_number and theirs.is_number and mine.is_finite and theirs.is_finite):
        return False
    return bool(abs(mine - theirs) > abs(mine) * 10 ** (5 - _DIGITS))


def _read(text: str) -> list[Any]:
    """The expression in a text that is nothing but mathematics: a box says so to the parser."""
    if _TRIGONOMETRY.search(text):
        text = _DEGREES.sub(r"(\1\\cdot\\frac{\\pi}{180})", text)  # math-verify takes degrees for radians
    found = parse(
        f"\\boxed{{{text}}}",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return [_with_imaginary_unit(item) if isinstance(item, Basic) else item for item in found]


def _with_imaginary_unit(item: Basic) -> Basic:
    """An exponent's i is the imaginary unit, as it is everywhere else (`exact`)."""
    return item.subs({symbol: I for symbol in item.free_symbols if symbol.name == "i"})
