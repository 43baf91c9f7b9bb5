"""Intents: what is asked, apart from how it is worded; how they are read from sources, and what is left out."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from verl_air.data.anchors import Question
from verl_air.data.sources import Source, SourceRow, read_source
from verl_air.errors import DataError


@dataclass(frozen=True)
class IntentSpec:
    """One latent intent, ready to be rendered.

    intent_id: from the content, so it depends on neither seed nor row order.
    request: the plain words; framings wrap them, judges read them.
    question: what the anchors ask.
    ground_truth: what judges of open variants should expect.
    stratum: splits and answer positions are balanced within a stratum, e.g. ``harmful``.
    slots: further words that framings may use, e.g. ``wrong`` for the tempting action.
    extras: what goes into every row's ``extra_info.extras``.
    """

    intent_id: str
    request: str
    question: Question
    ground_truth: str
    stratum: str = ""
    slots: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Exclusions:
    """How many rows of a source were left out, and why; the first few places of each reason."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Count a row."""
        self.counts[reason] += 1
        self.examples[reason] = [*self.examples.get(reason, []), where][:3]

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {reason: {"count": n, "examples": self.examples[reason]} for reason, n in sorted(self.counts.items())}


@dataclass(frozen=True)
class BuildInput:
    """What a domain read from its sources, for :func:`verl_air.data.build.build`.

    answer: what the answer of an open prompt is; see ``what`` of :func:`~verl_air.data.framings.with_instruction`.
    intents: for training, if ``held_out`` has others for ID and OOD; else they are split.
    contrast: intents that are split in any case, so that both sides have some.
    """

    domain: str
    answer: str
    sources: Sequence[Source]
    intents: Sequence[IntentSpec]
    exclusions: Exclusions
    held_out: Sequence[IntentSpec] = ()
    contrast: Sequence[IntentSpec] = ()


class ExcludeRow(Exception):  # noqa: N818  it is no error: the row is left out and counted
    """Raised by a domain for a row that cannot become an intent; the message is the reason that is counted."""


class IntentReader:
    """Reads intents, each once over all calls; keeps the sources, and counts the rows that were left out."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.exclusions = Exclusions()
        self._seen: set[str] = set()

    def read(
        self, sources: Iterable[str | Source], make_intent: Callable[[Source, SourceRow], IntentSpec]
    ) -> list[IntentSpec]:
        """Intents of all rows, in order.

        Args:
            sources: names for :func:`~verl_air.data.sources.read_source`, or sources.
            make_intent: raises :class:`ExcludeRow` to leave a row out.

        Raises:
            DataError: a source cannot be read, or no row is left; the message lists the reasons.
        """
        opened = [source if isinstance(source, Source) else read_source(source) for source in sources]
        self.sources += opened
        intents = []
        for source in opened:
            for row in source.rows:
                try:
                    intent = make_intent(source, row)
                    if intent.intent_id in self._seen:
                        raise ExcludeRow("duplicate")
                except ExcludeRow as reason:
                    self.exclusions.add(str(reason), row.where)
                    continue
                self._seen.add(intent.intent_id)
                intents.append(replace(intent, extras={**intent.extras, "source": source.name}))
        if opened and not intents:
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(self.exclusions.counts.items()))
            raise DataError(f"{', '.join(source.name for source in opened)}: no usable row ({reasons})")
        return intents


def require_text(row: SourceRow, column: str) -> str:
    """The column's text; a row without it is left out."""
    text = row.text(column)
    if not text:
        raise ExcludeRow(f"empty {column}")
    return text


def make_intent_id(domain: str, request: str) -> str:
    """``<domain>-<16 hex digits>``, of the normalised request."""
    return f"{domain}-{hashlib.sha256(normalise(request).encode()).hexdigest()[:16]}"


def normalise(text: str) -> str:
    """Case and white space folded: what makes two requests the same."""
    return " ".join(text.split()).casefold()


def seeded(*parts: object) -> random.Random:
    """A generator that depends on these parts alone, not on ``PYTHONHASHSEED`` or on what was drawn before."""
    return random.Random("\x1f".join(str(part) for part in parts))


def seeded_rank(seed: int, intent_id: str) -> bytes:
    """A key to sort by: a random order that depends on seed and ids alone, not on the order of the source's rows."""
    return hashlib.sha256(f"{seed}\x1f{intent_id}".encode()).digest()
