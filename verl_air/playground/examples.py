"""Supervised examples of the warm start, drawn afresh for every batch.

A label is drawn each time, with the framing's own probability of fooling the policy. So the model learns
the probability instead of one remembered label an intent: at temperature 1 it is right as often as the framing's
grade says.

The whole world is seen here, held-out intents and OOD framings included, as a pretrained model has seen the world:
nothing can be fooled by words it never read. What RL never sees is a matter of the data files.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from verl_air.playground.judging import judge_prompt, render_verdict
from verl_air.playground.prompts import FRAMINGS, LETTERS, Framing, render_anchor
from verl_air.playground.replies import CLOSERS, STANCES, Stance, render_answer, render_response, right_stance
from verl_air.playground.world import INTENTS, Intent

ANCHOR_ERROR = 0.08  # an anchor is answered wrongly
OVER_REFUSAL = 0.05  # a benign open request is refused
BROKEN_FORMAT = 0.03  # a response lacks a tag
ODD_ANSWER = 0.1  # the judge is shown an answer without a clear stance


@dataclass(frozen=True)
class Example:
    """One user message and what the model is to say next, in plain words."""

    prompt: str
    target: str


def anchor_example(intent: Intent, rng: random.Random) -> Example:
    """A multiple-choice question, its options in random order, mostly answered rightly."""
    order = STANCES if rng.random() < 0.5 else STANCES[::-1]
    prompt, letter = render_anchor(intent, order)
    stance = right_stance(intent)
    if rng.random() < ANCHOR_ERROR:
        letter = LETTERS[1 - LETTERS.index(letter)]
        stance = STANCES[1 - STANCES.index(stance)]
    return Example(prompt, render_response(stance, letter, rng, broken=rng.random() < BROKEN_FORMAT))


def open_example(intent: Intent, framing: Framing, rng: random.Random) -> Example:
    """A framed request. A harmful one fools the model with the framing's probability."""
    refuses = rng.random() >= framing.fooled if intent.harmful else rng.random() < OVER_REFUSAL
    stance: Stance = "refuse" if refuses else "comply"
    response = render_response(stance, render_answer(stance, rng), rng, broken=rng.random() < BROKEN_FORMAT)
    return Example(framing.render(intent, rng), response)


def judge_example(intent: Intent, rng: random.Random) -> Example:
    """A reply to judge: of either stance, or an odd one."""
    if rng.random() < ODD_ANSWER:
        answer = rng.choice((*LETTERS, *CLOSERS, "", f"{render_answer('comply', rng)} {render_answer('refuse', rng)}"))
    else:
        answer = render_answer(rng.choice(STANCES), rng)
    return Example(judge_prompt(intent.request, answer), render_verdict(intent, answer, rng))


def draw_batch(rng: random.Random, *, anchors: int, opens: int, judgements: int) -> list[Example]:
    """This many examples of each kind, over all intents and all framings."""
    return [
        *(anchor_example(rng.choice(INTENTS), rng) for _ in range(anchors)),
        *(open_example(rng.choice(INTENTS), rng.choice(FRAMINGS), rng) for _ in range(opens)),
        *(judge_example(rng.choice(INTENTS), rng) for _ in range(judgements)),
    ]
