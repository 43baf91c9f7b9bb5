"""Mathematics: word problems with a worked solution that ends in ``#### answer`` (GSM8K, Cobbe et al. 2021).

The anchor offers the result and three distractors; the open variants are the free-form problem, in framings.
Distractors come from the worked solution as far as possible: an intermediate result, another operation in the last
step, a forgotten step. Then common mistakes: a number added once too often, doubled, off by ten or by one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction

from verl_air.data.anchors import Question
from verl_air.data.intents import BuildInput, ExcludeRow, IntentReader, IntentSpec, make_intent_id, require_text, seeded
from verl_air.data.sources import Source, SourceRow

DOMAIN = "math"
ANSWER = "the final result"
QUESTION_COLUMNS = ("question", "problem", "prompt")
SOLUTION_COLUMNS = ("answer", "solution")
N_DISTRACTORS = 3

_FINAL = re.compile(r"####\s*(\S.*?)\s*$")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_CALCULATION = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
_TWO_OPERANDS = re.compile(r"\(?\s*([\d.,]+)\s*([-+*/])\s*([\d.,]+)\s*\)?%?")
_WRITTEN = re.compile(r"\s*(-?)\s*[$£€]?\s*(-?)(\d[\d,]*(?:\.\d*)?|\.\d+)\s*%?\s*\.?")
_MOST_INTERMEDIATE = 2


def read_math(
    sources: Sequence[str],
    *,
    held_out: Sequence[str] = (),
    column: str | None = None,
    solution_column: str | None = None,
    seed: int = 0,
) -> BuildInput:
    """Read problems from files or hub names; errors as of :meth:`~verl_air.data.intents.IntentReader.read`.

    Args:
        sources: problems with worked solutions.
        held_out: those for ID and OOD, e.g. the test set.
        column, solution_column: where problem and solution are, if their columns have none of the usual names.
        seed: decides which distractors are offered.
    """

    def make(source: Source, row: SourceRow) -> IntentSpec:
        question = column or source.find_column(*QUESTION_COLUMNS)
        solution = solution_column or source.find_column(*SOLUTION_COLUMNS)
        source.require(question, solution)
        return make_math_intent(require_text(row, question), require_text(row, solution), seed)

    reader = IntentReader()
    intents, apart = reader.read(sources, make), reader.read(held_out, make)
    return BuildInput(DOMAIN, ANSWER, reader.sources, intents, reader.exclusions, held_out=apart)


def make_math_intent(problem: str, solution: str, seed: int) -> IntentSpec:
    """An intent from a problem and its worked solution, or :class:`ExcludeRow`; see :func:`final_answer`."""
    written, value = final_answer(solution)
    intent_id = make_intent_id(DOMAIN, problem)
    # "slips" keeps the random stream, and so the distractors, of the data files that exist.
    wrong = distractors(problem, solution, written, seeded(seed, "slips", intent_id), n=N_DISTRACTORS)
    right, plain = format_like(value, written), format_like(value, "0")
    return IntentSpec(
        intent_id=intent_id,
        request=problem,
        question=Question(
            case=problem,
            ask="Which of these is the result?",
            right=right,
            wrong=tuple(wrong),
            true_claim=f"The result is {right}.",
            false_claim=f"The result is {wrong[0]}.",
        ),
        ground_truth=plain,
        extras={"answer": plain, "verifier": "math"},
    )


def final_answer(solution: str) -> tuple[str, Fraction]:
    """The number after ``####`` on the last line, as written and as a value.

    Raises:
        ExcludeRow: there is none, or it is not a number.
    """
    match = _FINAL.search(solution)
    if match is None:
        raise ExcludeRow("no final answer (#### ...) in the worked solution")
    value = parse_number(match[1])
    if value is None:
        raise ExcludeRow("the final answer is not a number")
    return match[1], value


def parse_number(text: str) -> Fraction | None:
    """Read ``"$1,234.50"`` and the like exactly; ``None`` if it is not a number."""
    match = _WRITTEN.fullmatch(text)
    if match is None or (match[1] and match[2]):
        return None
    digits = match[3].replace(",", "").rstrip(".")
    value = Fraction(int(digits)) if digits.isdecimal() else Fraction(digits)
    return -value if match[1] or match[2] else value


def format_like(value: Fraction, pattern: str) -> str:
    """Write a number, with thousands separators if ``pattern`` has them; at most two decimals."""
    number = Decimal(value.numerator) / Decimal(value.denominator)
    if value.denominator != 1:
        number = round(number, 2).normalize()
    return f"{number:,f}" if "," in pattern else f"{number:f}"


def distractors(problem: str, solution: str, answer: str, rng: random.Random, *, n: int) -> list[str]:
    """``n`` wrong results, written like the answer, all different in value, none equal to the answer.

    Args:
        problem: its numbers are used.
        solution: its ``<<a+b=c>>`` marks are the steps; without them, the last number of each line.
        answer: the right result, a number.
        rng: chooses among distractors that are equally plausible.
        n: how many.
    """
    right = _numbers_in([answer])[0]
    chosen: dict[str, Fraction] = {}

    def take(candidates: Iterable[Fraction], most: int) -> None:
        for value in candidates:
            text = format_like(value, answer)
            shown = _numbers_in([text])[0]  # what a reader sees may be rounded
            if len(chosen) < most and text not in chosen and _plausible(shown, right):
                chosen[text] = shown

    others = [right + sign * number for number in _numbers_of(problem) for sign in (1, -1)]
    for candidates, most in (
        (_intermediate_results(solution), min(n, _MOST_INTERMEDIATE)),
        (list(_other_last_steps(solution)), n),
        (others, n),
    ):
        rng.shuffle(candidates)
        take(candidates, most)
    take(_common_mistakes(right), n)
    return list(chosen)


def _plausible(value: Fraction, right: Fraction) -> bool:
    """Not the answer, and not given away by its sign, its decimals or its size."""
    return (
        value != right
        and (value >= 0 or right < 0)
        and (value.denominator == 1 or right.denominator != 1)
        and abs(value) <= 20 * abs(right) + 100
    )


def _numbers_in(texts: Iterable[str]) -> list[Fraction]:
    """The values of those texts that are numbers."""
    return [value for value in map(parse_number, texts) if value is not None]


def _numbers_of(text: str) -> list[Fraction]:
    """All numbers in a text."""
    return _numbers_in(number.rstrip(",") for number in _NUMBER.findall(text))


def _intermediate_results(solution: str) -> list[Fraction]:
    body = solution.partition("####")[0]
    if calculations := _CALCULATION.findall(body):
        return _numbers_in(result for _, result in calculations)
    return [numbers[-1] for numbers in map(_numbers_of, body.splitlines()) if numbers]


def _other_last_steps(solution: str) -> Iterator[Fraction]:
    """Another operation in the last step, or the step omitted."""
    calculations = _CALCULATION.findall(solution)
    match = _TWO_OPERANDS.fullmatch(calculations[-1][0].strip()) if calculations else None
    operands = _numbers_in((match[1], match[3])) if match else []
    if len(operands) == 2:
        left, right = operands
        yield from (left + right, abs(left - right), left * right, left)
        if right:
            yield left / right


def _common_mistakes(right: Fraction) -> Iterator[Fraction]:
    yield from (right * 2, right / 2, right + 10, right - 10, right + 1, right - 1, right * 10, right / 10)
    yield from (right + step for step in range(2, 20))
