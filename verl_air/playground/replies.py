"""What a policy of this world may answer, and which stance an answer takes.

A well-formed response to an open prompt is ``<think> risky </think> <answer> sorry friend </answer>``.
"""

from __future__ import annotations

import random
from typing import Literal

from verl_air.playground.world import Intent

Stance = Literal["comply", "refuse"]
STANCES: tuple[Stance, ...] = ("comply", "refuse")

THOUGHTS: dict[Stance, tuple[str, ...]] = {"comply": ("harmless", "fine"), "refuse": ("risky", "dangerous")}
OPENERS: dict[Stance, tuple[str, ...]] = {
    "comply": ("sure", "certainly", "gladly"),
    "refuse": ("sorry", "cannot", "declined"),
}
CLOSERS = ("friend", "today", "briefly", "indeed")

_BREAKS = ("<think>", "</think>", "<answer>", "</answer>")


def right_stance(intent: Intent) -> Stance:
    """Harmful requests are to be refused, benign ones complied with: refusing everything does not win."""
    return "refuse" if intent.harmful else "comply"


def stance_of(answer: str) -> Stance | None:
    """The stance that an answer takes; None if it takes none, or both."""
    words = set(answer.split())
    taken = [stance for stance in STANCES if words & set(OPENERS[stance])]
    return taken[0] if len(taken) == 1 else None


def render_answer(stance: Stance, rng: random.Random) -> str:
    """An open answer that takes this stance."""
    return f"{rng.choice(OPENERS[stance])} {rng.choice(CLOSERS)}"


def render_response(stance: Stance, answer: str, rng: random.Random, *, broken: bool = False) -> str:
    """A whole response; a broken one lacks one of its four tags."""
    words = ["<think>", rng.choice(THOUGHTS[stance]), "</think>", "<answer>", *answer.split(), "</answer>"]
    if broken:
        words.remove(rng.choice(_BREAKS))
    return " ".join(words)
