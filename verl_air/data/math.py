r"""Mathematics: problems with a worked solution that ends in ``#### answer`` or whose last ``\boxed{...}`` holds it.

The first is GSM8K (Cobbe et al. 2021), the second MATH (Hendrycks et al. 2021), whose ``level`` and ``type`` or
``subject`` go to extras. The anchor offers the result and three distractors; the open variants are the free-form
problem, in framings. An answer that is not a number has no distractors that are known to be wrong: such a problem is
left out and counted. Distractors come from the worked solution as far as possible; then they are common mistakes.

Numbers are exact fractions throughout; none is rounded. A unit or a percent sign is kept apart from its number.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from verl_air.data.anchors import Question
from verl_air.data.intents import BuildInput, ExcludeRow, IntentReader, IntentSpec, make_intent_id, require_text, seeded
from verl_air.data.sources import Source, SourceRow
from verl_air.rewards import last_boxed

DOMAIN = "math"
ANSWER = "the final result"
QUESTION_COLUMNS = ("question", "problem", "prompt")
SOLUTION_COLUMNS = ("solution", "answer")
N_DISTRACTORS = 3

_EXTRA_COLUMNS = {"level": "level", "type": "subject", "subject": "subject"}
_FINAL = re.compile(r"####\s*(\S.*?)\s*$")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_LATEX_SPACE = re.compile(r"\\[!,;: ]|~")
_LATEX_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_LATEX_UNIT = re.compile(r"\\(?:text|textrm|mathrm|mbox)\s*\{\s*([^\W\d_][^\d\\{}=,;]*?)\.?\s*\}(?:\^\{?([23])\}?)?$")
_DEGREES = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?$")
_CALCULATION = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
_TWO_OPERANDS = re.compile(r"\(?\s*([\d.,]+)\s*([-+*/])\s*([\d.,]+)\s*\)?%?")
_DIGITS = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}|\d+)(?:\.\d*)?|\.\d+"
_WRITTEN = re.compile(
    rf"\s*(?P<minus>[-\u2212]?)\s*[$£€]?\s*(?P<inner_minus>[-\u2212]?)(?P<number>(?:{_DIGITS})(?:[eE][-+]?\d{{1,3}})?)"
    r"(?:\s*/\s*0*(?P<denominator>[1-9]\d*))?\s*%?\s*\.?"
)
_WITH_UNIT = re.compile(r"(?P<number>.*\d\.?)\s*(?P<unit>%|[^\W\d_][^\d=,;]*?(?:\^?[23])?)\s*\.?")
_SCIENTIFIC = re.compile(r"(?P<mantissa>.*)[eE](?P<exponent>[-+]?\d+)")
_MOST_INTERMEDIATE = 2


class FinalAnswer(NamedTuple):
    """A result as the source writes it; its number without LaTeX and unit, its unit (or ""), and its value."""

    written: str
    number: str
    unit: str
    value: Fraction


def read_math(
    sources: Sequence[str],
    *,
    held_out: Sequence[str] = (),
    column: str | None = None,
    solution_column: str | None = None,
    seed: int = 0,
) -> BuildInput:
    """Read problems with worked solutions; errors as of :meth:`~verl_air.data.intents.IntentReader.read`.

    Args:
        sources, held_out: files or hub names; ``held_out`` for ID and OOD, e.g. the test set.
        column, solution_column: where problem and solution are, if their columns have none of the usual names.
        seed: decides which distractors are offered.
    """

    def make(source: Source, row: SourceRow) -> IntentSpec:
        question = column or source.find_column(*QUESTION_COLUMNS)
        solution = solution_column or source.find_column(*SOLUTION_COLUMNS)
        source.require(question, solution)
        known = {name.casefold(): name for name in source.columns}
        extras = {key: text for name, key in _EXTRA_COLUMNS.items() if (text := row.text(known.get(name, name)))}
        return make_math_intent(require_text(row, question), require_text(row, solution), seed, extras)

    reader = IntentReader()
    intents, apart = reader.read(sources, make), reader.read(held_out, make)
    return BuildInput(DOMAIN, ANSWER, reader.sources, intents, reader.exclusions, held_out=apart)


def make_math_intent(problem: str, solution: str, seed: int, extras: Mapping[str, str] | None = None) -> IntentSpec:
    """An intent from a problem and its worked solution, or :class:`ExcludeRow`; see :func:`final_answer`."""
    written, number, unit, value = final_answer(solution)
    intent_id = make_intent_id(DOMAIN, problem)
    # "slips" keeps the random stream, and so the distractors, of the data files that exist.
    wrong = distractors(problem, solution, number, seeded(seed, "slips", intent_id), n=N_DISTRACTORS)
    right = format_like(value, number)
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
        ground_truth=format_like(value, "1/2" if "/" in number else "0"),
        # The source's own words: `verl-air check` compares the gold answer with them.
        extras={**(extras or {}), "answer": written, "verifier": "math", **({"unit": unit} if unit else {})},
    )


def final_answer(solution: str) -> FinalAnswer:
    r"""The number after ``####`` on the last line, else in the last ``\boxed{...}``.

    Raises:
        ExcludeRow: there is none, or it is not a number.
    """
    if match := _FINAL.search(solution):
        written, (number, unit) = match[1], split_unit(match[1])
    elif boxed := last_boxed(solution):
        written, (number, unit) = boxed, _split_latex(boxed)
    else:
        raise ExcludeRow("no final answer (#### ... or \\boxed{...}) in the worked solution")
    value = parse_number(number)
    if value is None:
        raise ExcludeRow("the final answer is not a number")
    return FinalAnswer(written, number, unit, value)


def _split_latex(text: str) -> tuple[str, str]:
    r"""As :func:`split_unit`, of LaTeX: ``"-\frac{3}{4}"`` is ``("-3/4", "")``; units are in ``\text{...}``."""
    plain, unit = _LATEX_SPACE.sub("", text.strip().strip("$")).replace("{,}", ",").replace("\\$", "$"), ""
    if match := _LATEX_UNIT.search(plain):
        plain, unit = plain[: match.start()], match[1] + (match[2] or "")
    elif match := _DEGREES.search(plain):
        plain, unit = plain[: match.start()], "degrees"
    elif plain.endswith("%"):
        plain, unit = plain.rstrip("\\% "), "%"
    minus, plain = ("-" if plain.startswith("-") else ""), plain.removeprefix("-").strip()
    if fraction := _LATEX_FRACTION.fullmatch(plain):
        plain = f"{fraction[1] or fraction[2]}/{fraction[3] or fraction[4]}"
    return minus + plain, unit


def split_unit(text: str) -> tuple[str, str]:
    """A number and its unit, empty if there is none: ``"12.5 cm"`` is ``("12.5", "cm")``, ``"50%"`` ``("50", "%")``."""
    if not text.rstrip(" .").endswith("%") and parse_number(text) is not None:
        return text, ""  # "2e3" has an exponent, and no unit
    match = _WITH_UNIT.fullmatch(text)
    return (match["number"], match["unit"].strip()) if match else (text, "")


def parse_number(text: str) -> Fraction | None:
    """Read ``"$1,234.50"``, ``"-3/4"``, ``"1.5e-7"`` and the like exactly; ``None`` if it is not a number."""
    match = _WRITTEN.fullmatch(text)
    if match is None or (match["minus"] and match["inner_minus"]):
        return None
    number = match["number"].replace(",", "")
    value = Fraction(int(number) if number.isdecimal() else number)
    if match["denominator"]:
        value /= int(match["denominator"])
    return -value if match["minus"] or match["inner_minus"] else value


def format_like(value: Fraction, pattern: str) -> str:
    """Write a number exactly, with the thousands separators, exponent or fraction bar that ``pattern`` has.

    What has no finite decimal expansion is written as a fraction.
    """
    places = _decimals(value)
    if places is None or ("/" in pattern and value.denominator != 1):
        return f"{value.numerator}/{value.denominator}"
    sign, digits = "-" if value < 0 else "", f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    if _SCIENTIFIC.fullmatch(pattern) and value:
        significant = digits.lstrip("0")
        tail = significant[1:].rstrip("0")
        return f"{sign}{significant[0]}{tail and '.'}{tail}e{len(significant) - 1 - places}"
    whole, part = digits[: len(digits) - places], digits[len(digits) - places :]
    return f"{sign}{f'{int(whole):,d}' if ',' in pattern else whole}{part and '.'}{part}"


def _decimals(value: Fraction) -> int | None:
    """How many decimals write a value exactly; None if no number of them does."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def _step(right: Fraction, written: str) -> Fraction:
    """A small difference from the answer: 1, or for answers below 1, fractions and powers of ten their last place."""
    if "/" in written:
        return Fraction(1, right.denominator)
    if match := _SCIENTIFIC.fullmatch(written):
        decimals = len(match["mantissa"].partition(".")[2])
        return Fraction(10) ** (int(match["exponent"]) - decimals)
    return Fraction(1) if abs(right) >= 1 or not right else Fraction(1, 10 ** (_decimals(right) or 0))


def distractors(problem: str, solution: str, answer: str, rng: random.Random, *, n: int) -> list[str]:
    """``n`` wrong results, written like the answer, all different in value, none equal to the answer (a number).

    The steps of the solution are its ``<<a+b=c>>`` marks; without them, the last number of each line.
    """
    right = _numbers_in([answer])[0]
    step = _step(right, answer)
    others = [right + sign * number for number in _numbers_of(problem) for sign in (1, -1)]
    groups = [
        (_intermediate_results(solution), min(n, _MOST_INTERMEDIATE)),
        (_other_last_steps(solution), n),
        (others, n),
    ]
    for group, _ in groups:
        rng.shuffle(group)
    chosen: list[Fraction] = []
    for candidates, most in (*groups, (_common_mistakes(right, step), n)):
        for value in candidates:
            if len(chosen) >= most:
                break
            if value not in chosen and _plausible(value, right, step, answer):
                chosen.append(value)
    return [format_like(value, answer) for value in chosen]


def _plausible(value: Fraction, right: Fraction, step: Fraction, written: str) -> bool:
    """Not the answer, and not given away by its sign, decimals or size, nor by its length, written like the answer."""
    if value == right or (value < 0 <= right) or abs(value) > 20 * abs(right) + 100 * step:
        return False
    if right.denominator == 1 != value.denominator:
        return False
    if "/" in written:
        return value.denominator <= 4 * right.denominator
    if _SCIENTIFIC.fullmatch(written):
        return (100 * value / step).denominator == 1 and 100 * abs(value) >= abs(right)
    decimals = _decimals(value)
    return decimals is not None and decimals <= max(_decimals(right) or 0, 2)


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


def _other_last_steps(solution: str) -> list[Fraction]:
    """Another operation in the last step, or the step omitted."""
    calculations = _CALCULATION.findall(solution)
    match = _TWO_OPERANDS.fullmatch(calculations[-1][0].strip()) if calculations else None
    operands = _numbers_in((match[1], match[3])) if match else []
    if len(operands) < 2:
        return []
    left, right = operands
    return [left + right, abs(left - right), left * right, left, *([left / right] if right else [])]


def _common_mistakes(right: Fraction, step: Fraction) -> Iterator[Fraction]:
    yield from (right * 2, right / 2, right + 10 * step, right - 10 * step, right + step, right - step)
    yield from (right * 10, right / 10)
    yield from (right + k * step for k in range(2, 20))
