"""An intent: what is asked, apart from how it is worded; and the bookkeeping of what was left out."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from verl_air.data.anchors import Question

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Intent:
    """One latent intent, ready to be rendered.

    intent_id: from the content, so it depends on neither seed nor row order.
    request: the plain words; framings wrap them, judges read them.
    question: what the anchors ask.
    ground_truth: what judges of open variants are told to expect.
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
        listed = self.examples.setdefault(reason, [])
        if len(listed) < 3:
            listed.append(where)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {reason: {"count": n, "examples": self.examples[reason]} for reason, n in sorted(self.counts.items())}


def make_intent_id(domain: str, request: str) -> str:
    """``<domain>-<16 hex digits of the normalised request>``."""
    return f"{domain}-{hashlib.sha256(normalise(request).encode()).hexdigest()[:16]}"


def normalise(text: str) -> str:
    """Case and white space folded: what makes two requests the same."""
    return _SPACE.sub(" ", text).strip().casefold()


def seeded(*parts: object) -> random.Random:
    """A generator that depends on these parts alone, not on ``PYTHONHASHSEED`` or on what was drawn before."""
    return random.Random("\x1f".join(str(part) for part in parts))


def seeded_rank(seed: int, intent_id: str) -> bytes:
    """A key to sort by: a random order that depends on seed and ids alone, not on the order of the source's rows."""
    return hashlib.sha256(f"{seed}\x1f{intent_id}".encode()).digest()
