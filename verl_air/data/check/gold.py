"""Does each row's gold answer pass its own verifier, and do the wrong choices fail?"""

from __future__ import annotations

import json
import re
import string
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from verl_air.data.anchors import LETTERS
from verl_air.data.intents import normalise
from verl_air.errors import ConfigError, RewardError
from verl_air.rewards import Style, self_check

DEFAULT_VERIFIERS: Mapping[str, str] = {"*/anchor": "multiple_choice", "math/open": "math"}
"""For rows whose extras name no ``verifier``; ``<domain>/<role>`` or ``*/<role>``."""

_PLAIN_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,6})?")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")
_NUMBERS_VERIFIED = 500
_GROUND_TRUTH_ONLY = frozenset({"exact_match", "math", "true_false"})


class GoldCheck:
    """Checks rows one by one and remembers what it verified: rows that do not differ for the verifier count as one.

    Of plain numbers under ``math``, which are all read alike, the first 500 different ones are verified. Rows without a
    verifier (a judge scores them) pass.
    """

    def __init__(self, verifiers: Mapping[str, str] = DEFAULT_VERIFIERS) -> None:
        self._verifiers = verifiers
        self._verified: dict[tuple[Any, ...], str | None] = {}
        self._numbers = 0

    def faults(
        self, ground_truth: str, info: Mapping[str, Any], extras: Mapping[str, Any]
    ) -> Iterator[tuple[str, str]]:
        """Column and message of each fault. ``info``: domain, role, split, intent_id and extras of the row."""
        domain, role = info["domain"], info["role"]
        if not isinstance(domain, str) or not isinstance(role, str):
            return  # missing: reported as such
        of_route = self._verifiers.get(f"{domain}/{role}") or self._verifiers.get(f"*/{role}")
        verifier = extras.get("verifier") or of_route
        if verifier is None:
            return
        choices = extras.get("choices")
        if verifier == "math" and (fault := _source_fault(ground_truth, str(extras.get("answer", "")))):
            yield "reward_model.ground_truth", fault
        if isinstance(choices, list):
            messages = _choice_faults(verifier, ground_truth, [str(choice) for choice in choices], extras)
            yield from (("extra_info.extras.choices", message) for message in messages)
        style = extras.get("style", "think_answer")
        key = (verifier, domain, ground_truth, style, *_relevant(verifier, extras))
        if key not in self._verified:
            self._verified[key] = self._verify(verifier, ground_truth, info, style)
        if fault := self._verified[key]:
            yield "reward_model.ground_truth", fault

    def _verify(self, verifier: str, ground_truth: str, info: Mapping[str, Any], style: Style) -> str | None:
        if verifier == "math" and _PLAIN_NUMBER.fullmatch(ground_truth):
            self._numbers += 1
            if self._numbers > _NUMBERS_VERIFIED:
                return None
        try:
            return self_check(verifier, ground_truth, info, style=style)
        except (ConfigError, RewardError) as error:  # no such function, or it cannot read the row: a fault of the row
            return str(error)


def _relevant(verifier: str, extras: Mapping[str, Any]) -> tuple[Any, ...]:
    """What else a verdict on the gold answer depends on."""
    if verifier in _GROUND_TRUTH_ONLY:
        return ()
    if verifier == "multiple_choice":
        choices = extras.get("choices")
        return (tuple(choices) if isinstance(choices, Mapping) else len(choices or ()), extras.get("letters"))
    return (json.dumps(extras, sort_keys=True),)


@lru_cache(maxsize=10_000)  # rows of one intent follow each other
def _source_fault(ground_truth: str, answer: str) -> str | None:
    """The gold answer is the number that the source states: no builder has rounded or rewritten it."""
    source, gold = _source_value(answer), _number(ground_truth)
    if source is None or gold is None or source == gold:
        return None
    return f"{ground_truth} is not the source's answer {answer} (off by {float(gold - source):g})"


@lru_cache(maxsize=100_000)
def _number(text: str) -> Fraction | None:
    """The value of a text that is a number and nothing else. On purpose not the builder's own reader."""
    plain = _LATEX_FRACTION.sub(r"\1/\2", text.strip()).replace("\u2212", "-").replace(",", "").removesuffix(".")
    sign = "-" if plain.startswith("-") else ""
    try:
        return Fraction(sign + plain.removeprefix("-").lstrip("$£€ ").removesuffix("%").strip().replace(" / ", "/"))
    except (ValueError, ZeroDivisionError):
        return None


@lru_cache(maxsize=10_000)
def _source_value(text: str) -> Fraction | None:
    """The same of a source's answer, which may end in a unit."""
    first = text.split(" ", 1)[0]
    candidates = (text, first, first.rstrip("%°").rstrip(string.ascii_letters))
    return next((value for number in candidates if (value := _number(number)) is not None), None)


def _choice_faults(verifier: str, ground_truth: str, choices: list[str], extras: Mapping[str, Any]) -> Iterator[str]:
    if len({normalise(choice) for choice in choices}) < len(choices):
        yield "two choices are the same text"
        return
    values = [_number(choice) for choice in choices]
    numbers = [value for value in values if value is not None]
    if len(set(numbers)) < len(numbers):
        yield "two choices are the same number"
    answer = _source_value(str(extras.get("answer", "")))
    if verifier == "multiple_choice" and answer is not None and ground_truth in LETTERS[: len(choices)]:
        place = LETTERS.index(ground_truth)
        if values[place] is not None and values[place] != answer:
            yield f"choice {ground_truth} is {choices[place]}, but the answer is {extras['answer']}"
        if any(value == answer for letter, value in enumerate(values) if letter != place):
            yield f"a choice other than {ground_truth} equals the answer {extras['answer']}"


class AnswerPositions:
    """How often the right answer is at each place, by file, anchor format and number of places."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], Counter[int]] = defaultdict(Counter)

    def add(self, file: str, context: str, ground_truth: str, extras: Mapping[str, Any]) -> None:
        """Count an anchor."""
        choices = ["true", "false"] if ground_truth in ("true", "false") else extras.get("choices")
        if isinstance(choices, list):
            place = choices.index(ground_truth) if ground_truth in choices else LETTERS.find(ground_truth)
            if 0 <= place < len(choices):
                self._counts[file, context, len(choices)][place] += 1

    def unbalanced(self) -> Iterator[tuple[str, str]]:
        """File and message wherever a place is chosen far more or less often than by chance (four standard errors)."""
        for (file, context, n), counts in sorted(self._counts.items()):
            total = counts.total()
            expected = total / n
            worst = max(range(n), key=lambda place: abs(counts[place] - expected))
            if total >= 50 and abs(counts[worst] - expected) > 4.0 * (expected * (1 - 1 / n)) ** 0.5:
                yield (
                    file,
                    f"{context}: the right answer is at place {worst + 1} of {n} in {counts[worst]} of {total} anchors "
                    f"(expected: about {expected:.0f}): a policy can earn by place alone",
                )
