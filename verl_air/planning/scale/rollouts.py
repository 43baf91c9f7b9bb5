"""Lengths of rollouts, and when they are done on shared engines and judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verl_air.planning.scale.assumptions import Assumptions

Floats = NDArray[np.float64]


def draw_lengths(a: Assumptions, rng: np.random.Generator, intents: int) -> Floats:
    """Response tokens [intents, prompts, completions]: log-normal, alike within an intent and a prompt, cut."""
    shape = (intents, a.group_size, a.completions)
    z = np.sqrt(a.same_intent) * rng.standard_normal((intents, 1, 1))
    z = z + np.sqrt(a.same_prompt) * rng.standard_normal((*shape[:2], 1))
    z = z + np.sqrt(max(0.0, 1 - a.same_intent - a.same_prompt)) * rng.standard_normal(shape)
    return np.clip(a.length_median * np.exp(a.length_sigma * z), 1, a.length_max)


@dataclass(frozen=True)
class Clock:
    """Seconds as a function of tokens that each running sequence has made; all run at the same rate.

    With n sequences on g GPUs a token takes 1/lone + n/(g peak) seconds: engines are taken to be evenly loaded.
    """

    tokens: Floats
    seconds: Floats

    @classmethod
    def of(cls, start: Floats, end: Floats, gpus: float, a: Assumptions) -> Clock:
        """Sequences run from ``start`` to ``end`` (tokens from now; below 0 is now)."""
        at = np.concatenate([np.maximum(start, 0), np.maximum(end, 0)])
        change = np.concatenate([np.ones(len(start)), -np.ones(len(end))])
        order = np.argsort(at, kind="stable")
        tokens = at[order]
        running = np.cumsum(change[order])[:-1]
        pace = 1 / a.sequence_tokens_per_s + running / (gpus * a.peak_tokens_per_s)
        seconds = np.cumsum(np.diff(tokens) * pace)
        first = tokens[0] / a.sequence_tokens_per_s  # nothing runs before the first start
        return cls(np.concatenate([[0.0], tokens]), np.concatenate([[0.0, first], first + seconds]))

    def when(self, tokens: Floats) -> Floats:
        """Seconds from now."""
        return np.interp(tokens, self.tokens, self.seconds)

    def made(self, seconds: float) -> float:
        """Tokens made by a running sequence in that time."""
        return float(np.interp(seconds, self.seconds, self.tokens))


def judged(arrive: Floats, rate: float, free_at: float) -> Floats:
    """When requests leave a first-come-first-served judge pool of ``rate`` a second that is busy until ``free_at``."""
    if not len(arrive):
        return arrive
    order = np.argsort(arrive, kind="stable")
    place = np.arange(len(arrive)) / rate
    begin = np.maximum.accumulate(np.maximum(arrive[order], free_at) - place) + place
    done = np.empty_like(arrive)
    done[order] = begin + 1 / rate
    return done
