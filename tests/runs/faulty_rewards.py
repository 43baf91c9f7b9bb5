"""Rewards for runs: sound ones that vary whatever the policy, and each kind of fault, which must not hang a run."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

from verl_air.rewards import Sample, Verdict, register_reward


@register_reward("a_tenth_out_of_range", reward_range=(-1.0, 1.25))
def a_tenth_out_of_range(sample: Sample) -> Verdict:
    """Right, but on a tenth of the rows above the range that it declares."""
    return Verdict(7.0 if is_faulty(sample.extra_info["index"]) else 1.25, right=True)


def is_faulty(index: int) -> bool:
    """Whether a row is in that tenth."""
    return index % 10 == 1


def says_right(text: str) -> bool:
    """True for about half of all texts, an untrained policy's too; only letters count."""
    return sum(map(ord, filter(str.isalpha, text))) % 2 == 0


@register_reward("by_its_letters", reward_range=(-1.0, 1.25))
def by_its_letters(sample: Sample) -> Verdict:
    """Right for about half of all responses."""
    right = says_right(sample.response)
    return Verdict(1.25 if right else -1.0, right)


@register_reward("slow", reward_range=(-1.0, 1.25))
async def slow(sample: Sample, *, seconds: float = 8.0) -> Verdict:
    """The same, so late that a fault meets the step while its rows are being scored."""
    await asyncio.sleep(seconds)
    return by_its_letters(sample)


@register_reward("a_tenth_hangs", reward_range=(-1.0, 1.25))
async def a_tenth_hangs(sample: Sample) -> Verdict:
    """The same, but on a tenth of the rows it waits without end."""
    if is_faulty(sample.extra_info["index"]):
        await asyncio.Event().wait()
    return by_its_letters(sample)


@register_reward("sleeps_in_the_loop", reward_range=(-1.0, 1.25))
def sleeps_in_the_loop(sample: Sample, *, mark: str) -> Verdict:
    """The same, until a file is there: then it never gives the event loop back."""
    while Path(mark).exists():
        time.sleep(1.0)
    return by_its_letters(sample)


@register_reward("backtracks", reward_range=(-1.0, 1.25))
def backtracks(sample: Sample, *, mark: str) -> Verdict:
    """The same, until a file is there: then it holds the interpreter too, for longer than anybody waits."""
    if Path(mark).exists():
        re.match(r"(a+)+$", "a" * 64 + "b")
    return by_its_letters(sample)


_LEAKED: list[bytearray] = []


@register_reward("leaks", reward_range=(-1.0, 1.25))
def leaks(sample: Sample, *, mark: str) -> Verdict:
    """The same, but each call keeps 64 MiB once a file is there."""
    if Path(mark).exists():
        _LEAKED.append(bytearray(b"x") * (64 << 20))
    return by_its_letters(sample)
