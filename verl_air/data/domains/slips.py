"""Plausible wrong results of a worked problem, for multiple choice.

Taken from the solution itself as far as it goes: a result on the way given out as the last, another operation in the
last step, a step forgotten. Then common slips: one of the numbers added once too often, doubled, off by ten or by one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, overload

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_CALCULATION = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
_TWO_OPERANDS = re.compile(r"\(?\s*([\d.,]+)\s*([-+*/])\s*([\d.,]+)\s*\)?%?")
_WRITTEN = re.compile(r"\s*(-?)\s*[$£€]?\s*(-?)(\d[\d,]*(?:\.\d*)?|\.\d+)\s*%?\s*\.?")
_FROM_THE_WAY = 2


@overload
def parse_number(text: str) -> Fraction: ...
@overload
def parse_number(text: str, default: None) -> Fraction | None: ...
def parse_number(text: str, default: Any = ...) -> Fraction | None:
    """Read ``"$1,234.50"`` and the like exactly.

    Raises:
        ValueError: it is no number and no default is given.
    """
    match = _WRITTEN.fullmatch(text)
    if match is None or (match[1] and match[2]):
        if default is ...:
            raise ValueError(f"not a number: {text!r}")
        return None
    value = Fraction(match[3].replace(",", "").rstrip("."))
    return -value if match[1] or match[2] else value


def format_like(value: Fraction, pattern: str) -> str:
    """Write a number, with thousands separators if ``pattern`` has them; at most two decimals."""
    number = Decimal(value.numerator) / Decimal(value.denominator)
    if value.denominator != 1:
        number = round(number, 2).normalize()
    return f"{number:,f}" if "," in pattern else f"{number:f}"


def plausible_slips(problem: str, solution: str, answer: str, rng: random.Random, *, n: int) -> list[str]:
    """``n`` wrong results, written like the answer, all different in value, none equal to the answer.

    Args:
        problem: its numbers are used in slips.
        solution: its ``<<a+b=c>>`` marks are the steps; without them, the last number of each line.
        answer: the right result, a number.
        rng: chooses among slips that are equally plausible.
        n: how many.
    """
    right = parse_number(answer)
    chosen: dict[str, Fraction] = {}

    def take(candidates: Iterator[Fraction] | list[Fraction], most: int) -> None:
        for value in candidates:
            text = format_like(value, answer)
            shown = parse_number(text)  # what a reader sees may be rounded
            if len(chosen) < most and text not in chosen and _plausible(shown, right):
                chosen[text] = shown

    on_the_way = _steps(solution)
    rng.shuffle(on_the_way)
    take(on_the_way, min(n, _FROM_THE_WAY))
    last_step = list(_last_step_slips(solution))
    rng.shuffle(last_step)
    take(last_step, n)
    others = [right + sign * number for number in _numbers(problem) for sign in (1, -1)]
    rng.shuffle(others)
    take(others, n)
    take(_common_slips(right), n)
    return list(chosen)


def _plausible(value: Fraction, right: Fraction) -> bool:
    """Not the answer, and not given away by its sign, its decimals or its size."""
    return (
        value != right
        and (value >= 0 or right < 0)
        and (value.denominator == 1 or right.denominator != 1)
        and abs(value) <= 20 * abs(right) + 100
    )


def _numbers(text: str) -> list[Fraction]:
    return [parse_number(number.rstrip(",")) for number in _NUMBER.findall(text)]


def _steps(solution: str) -> list[Fraction]:
    body = solution.partition("####")[0]
    results = [parse_number(result, default=None) for _, result in _CALCULATION.findall(body)]
    if not results:
        results = [numbers[-1] for numbers in map(_numbers, body.splitlines()) if numbers]
    return [result for result in results if result is not None]


def _last_step_slips(solution: str) -> Iterator[Fraction]:
    """Another operation in the last step, or the step left undone."""
    calculations = _CALCULATION.findall(solution)
    match = _TWO_OPERANDS.fullmatch(calculations[-1][0].strip()) if calculations else None
    if match is None:
        return
    left, right = parse_number(match[1], default=None), parse_number(match[3], default=None)
    if left is None or right is None:
        return
    yield from (left + right, abs(left - right), left * right, left)
    if right:
        yield left / right


def _common_slips(right: Fraction) -> Iterator[Fraction]:
    yield from (right * 2, right / 2, right + 10, right - 10, right + 1, right - 1, right * 10, right / 10)
    yield from (right + step for step in range(2, 20))
