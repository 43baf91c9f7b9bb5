"""Mathematics: word problems with a worked solution that ends in ``#### answer`` (GSM8K, Cobbe et al. 2021).

The anchor offers the result beside three plausible slips; the open variants are the free-form problem, in framings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from verl_air.data.anchors import Question
from verl_air.data.build import Material
from verl_air.data.domains.collect import ExcludeRow, material_of, require_text
from verl_air.data.domains.slips import format_like, parse_number, plausible_slips
from verl_air.data.intents import Intent, make_intent_id, seeded
from verl_air.data.sources import Record, Source

DOMAIN = "math"
ANSWER = "the final result"
QUESTION_COLUMNS = ("question", "problem", "prompt")
SOLUTION_COLUMNS = ("answer", "solution")
N_SLIPS = 3

_FINAL = re.compile(r"####\s*(\S.*?)\s*$")


def read_math(
    sources: Sequence[str],
    *,
    held_out: Sequence[str] = (),
    column: str | None = None,
    solution_column: str | None = None,
    seed: int = 0,
) -> Material:
    """Read problems with worked solutions.

    Args:
        sources: files or hub names.
        held_out: files or hub names of the problems for ID and OOD, e.g. the test set.
        column: the column of the problem, if it has none of the usual names.
        solution_column: the column of the worked solution, likewise.
        seed: decides which slips are offered.

    Raises:
        DataError: see :func:`~verl_air.data.sources.read_source` and :func:`~verl_air.data.domains.collect.collect`.
    """

    def make(source: Source, record: Record) -> Intent:
        question = column or source.find_column(*QUESTION_COLUMNS)
        solution = solution_column or source.find_column(*SOLUTION_COLUMNS)
        source.require(question, solution)
        return make_math_intent(require_text(record, question), require_text(record, solution), seed)

    return material_of(DOMAIN, ANSWER, sources, held_out, make)


def make_math_intent(problem: str, solution: str, seed: int) -> Intent:
    """An intent from a problem and its worked solution.

    Raises:
        ExcludeRow: the solution has no final answer, or it is not a number.
    """
    written = final_answer(solution)
    intent_id = make_intent_id(DOMAIN, problem)
    slips = plausible_slips(problem, solution, written, seeded(seed, "slips", intent_id), n=N_SLIPS)
    value = parse_number(written)
    return Intent(
        intent_id=intent_id,
        request=problem,
        question=Question(
            case=problem,
            ask="Which of these is the result?",
            right=format_like(value, written),
            wrong=tuple(slips),
            true_claim=f"The result is {format_like(value, written)}.",
            false_claim=f"The result is {slips[0]}.",
        ),
        ground_truth=format_like(value, "0"),
        extras={"answer": format_like(value, "0"), "verifier": "math"},
    )


def final_answer(solution: str) -> str:
    """What stands after ``####`` on the last line.

    Raises:
        ExcludeRow: nothing does, or it is not a number.
    """
    match = _FINAL.search(solution)
    if match is None:
        raise ExcludeRow("no final answer (#### ...) in the worked solution")
    value: Fraction | None = parse_number(match[1], default=None)
    if value is None:
        raise ExcludeRow("the final answer is not a number")
    return match[1]
