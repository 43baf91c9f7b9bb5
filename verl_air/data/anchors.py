"""Anchor formats: ways to ask about an intent so that a rule can check the answer.

A format is told where the right answer goes; these positions are drawn evenly, so that no letter pays by itself.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from verl_air.errors import DataError

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Question:
    """What a domain provides about an intent, for any format to use.

    case: the situation or the request, in full.
    ask: the question about it.
    right, wrong: answers in words; the right one and at least one wrong one, all different.
    true_claim, false_claim: one statement each about the case.
    label_ask, right_label, wrong_labels: a question that is answered with one fixed word, and the words.
    """

    case: str
    ask: str
    right: str
    wrong: tuple[str, ...]
    true_claim: str
    false_claim: str
    label_ask: str = ""
    right_label: str = ""
    wrong_labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnchorPrompt:
    """A rendered anchor. what: completes "Then write ... inside <answer>". choices: in the order shown."""

    text: str
    what: str
    ground_truth: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnchorFormat:
    """A registered format.

    verifier: name of the reward function that checks it.
    positions: how many places the right answer of a question can have.
    render: question, position below that number, and a generator for other choices.
    """

    name: str
    verifier: str
    positions: Callable[[Question], int]
    render: Callable[[Question, int, random.Random], AnchorPrompt]


_FORMATS: dict[str, AnchorFormat] = {}


def register_anchor_format(anchor_format: AnchorFormat) -> AnchorFormat:
    """Add a format; a :class:`DataError` if another one has its name."""
    if _FORMATS.setdefault(anchor_format.name, anchor_format) is not anchor_format:
        raise DataError(f"anchor format {anchor_format.name!r} is already registered; choose another name")
    return anchor_format


def get_anchor_format(name: str) -> AnchorFormat:
    """Look a format up; the :class:`DataError` for an unknown name lists those that are registered."""
    if name not in _FORMATS:
        raise DataError(f"no anchor format {name!r}; registered: {', '.join(anchor_format_names())}")
    return _FORMATS[name]


def anchor_format_names() -> list[str]:
    """All registered names, sorted."""
    return sorted(_FORMATS)


class BalancedPositions:
    """Draws positions evenly: each run of ``n`` calls with one key uses each of the ``n`` positions once."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._left: dict[Hashable, list[int]] = defaultdict(list)

    def draw(self, key: Hashable, n: int) -> int:
        """The next position for ``key``, in ``range(n)``."""
        left = self._left[key, n]
        if not left:
            left.extend(self._rng.sample(range(n), n))
        return left.pop()


def _with_right_at(position: int, right: str, wrong: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    shuffled = rng.sample(wrong, len(wrong))
    return (*shuffled[:position], right, *shuffled[position:])


def _multiple_choice(question: Question, position: int, rng: random.Random) -> AnchorPrompt:
    options = _with_right_at(position, question.right, question.wrong, rng)
    shown = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    text = f"{question.case}\n\n{question.ask}\n{shown}"
    return AnchorPrompt(text, "only the letter of your choice", LETTERS[position], options)


def _true_false(question: Question, position: int, rng: random.Random) -> AnchorPrompt:
    claim, truth = ((question.true_claim, "true"), (question.false_claim, "false"))[position]
    text = f"{question.case}\n\nIs this statement true or false?\n{claim}"
    return AnchorPrompt(text, "only the word true or the word false", truth)


def _label(question: Question, position: int, rng: random.Random) -> AnchorPrompt:
    if not question.right_label:
        raise DataError("this domain has no fixed labels: leave the anchor format 'label' out")
    labels = _with_right_at(position, question.right_label, question.wrong_labels, rng)
    text = f"{question.case}\n\n{question.label_ask}"
    return AnchorPrompt(text, f"exactly one of the words {', '.join(labels)}", question.right_label, labels)


MULTIPLE_CHOICE = register_anchor_format(
    AnchorFormat("multiple_choice", "multiple_choice", lambda question: 1 + len(question.wrong), _multiple_choice)
)
register_anchor_format(AnchorFormat("true_false", "true_false", lambda question: 2, _true_false))
register_anchor_format(AnchorFormat("label", "exact_match", lambda question: 1 + len(question.wrong_labels), _label))
