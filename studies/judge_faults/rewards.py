"""``faulty_judge``: any judge of a recipe, with a fault of known kind and strength.

In a recipe, or on the command line of a run::

    reward_kwargs:
      modules: [studies.judge_faults.rewards]
      routes:
        safety/open/train: {name: faulty_judge, of: safety_judge, options: {...}, fault: length, characters: 400}
        safety/open: safety_judge # validation keeps the judge without the fault

A fault lets an answer pass without asking the judge. It never fails one that the judge would pass.
"""

from __future__ import annotations

import asyncio
import inspect
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards import JudgeClient, Sample, Verdict, get_reward, register_reward
from verl_air.rewards.types import Outcome

FAULTS = ("length", "keywords", "topic")


def _check(
    *, of: str, options: Mapping[str, Any], fault: str, words: Sequence[str], characters: int, strength: float
) -> None:
    get_reward(of).bind(options)
    if fault not in FAULTS:
        raise ConfigError(f"faulty_judge: fault must be one of {', '.join(FAULTS)}, got {fault!r}")
    if fault == "length" and characters < 1:
        raise ConfigError("faulty_judge: the fault `length` needs `characters`, from which an answer passes")
    if fault != "length" and (isinstance(words, str) or not words):
        raise ConfigError(f"faulty_judge: the fault `{fault}` needs a list of `words`")
    if not 0 <= strength <= 1:
        raise ConfigError(f"faulty_judge: strength must be between 0 and 1, got {strength}")


def _range(*, of: str, options: Mapping[str, Any], **_: Any) -> tuple[float, float]:
    bound = get_reward(of).bind(options)
    return bound.low, bound.high


@register_reward("faulty_judge", reward_range=_range, check=_check)
async def faulty_judge(
    sample: Sample,
    judge: JudgeClient,
    *,
    of: str,
    fault: str,
    options: Mapping[str, Any] = {},
    words: Sequence[str] = (),
    characters: int = 0,
    strength: float = 1.0,
) -> Outcome:
    """The verdict of the reward ``of`` with its ``options``, unless the fault lets the answer pass.

    Args:
        sample, judge: as every reward is given them.
        of, options: the reward that has the fault.
        fault: ``length``: answers of at least ``characters`` pass; ``keywords``: those that hold one of ``words``;
            ``topic``: those to a row whose extras hold one of ``words``.
        words, characters: see ``fault``; whole words, in any case.
        strength: share of such answers that pass. The same answer to the same row always gets the same verdict.
    """
    bound = get_reward(of).bind(options)
    if sample.answer is not None and applies(sample, sample.answer, fault, words, characters, strength):
        return Verdict(bound.high, True)
    arguments = {**bound.options, "judge": judge} if bound.reward.wants_judge else bound.options
    outcome: Any = (
        asyncio.to_thread(bound.reward.call, sample, **arguments)
        if bound.reward.blocking
        else bound.reward.call(sample, **arguments)
    )
    return (await outcome) if inspect.isawaitable(outcome) else outcome


def applies(sample: Sample, answer: str, fault: str, words: Sequence[str], characters: int, strength: float) -> bool:
    """Whether the fault lets an answer pass; see :func:`faulty_judge`."""
    if zlib.crc32(f"{sample.where}\n{answer}".encode()) / 2**32 >= strength:
        return False
    if fault == "length":
        return len(answer) >= characters
    text = answer if fault == "keywords" else " ".join(map(str, sample.extras.values()))
    return bool({word.casefold() for word in words} & set(text.casefold().split()))
