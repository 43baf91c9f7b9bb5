r"""``math``: symbolic comparison with the library math-verify, in a child process that is killed when its time is up.

Two plain numbers, and two equal texts, are decided at once. What math-verify cannot decide within ``deadline_s``
abstains; an answer longer than ``max_chars`` is wrong, since no right answer is that long.
"""

import re
from collections.abc import Awaitable
from decimal import Decimal
from functools import cache
from importlib.util import find_spec

from verl_air.rewards import ConfigError, RewardError, Sample, Verdict, WorkerPool, last_boxed, register_reward

_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{1,40})?", re.ASCII)


def plain_number(text: str) -> Decimal | None:
    """The value of a text like ``1,234.50``; ``None`` for anything else."""
    text = text.removeprefix("\\$").removeprefix("$").removesuffix("$").strip()
    return Decimal(text.replace(",", "")) if _NUMBER.fullmatch(text) else None


@cache
def _pool(workers: int) -> WorkerPool:
    return WorkerPool("reward_fns._math_child:compare", size=workers)


def _check(*, workers: int, **_: object) -> None:
    if find_spec("math_verify") is None:
        raise ConfigError("the reward 'math' needs the library math-verify: pip install 'verl-air[math]'")
    if not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"math: workers must be a whole number above 0, got {workers!r}")


def _wrong(sample: Sample) -> str:
    return f"\\boxed{{{sample.ground_truth} + 1}}"


@register_reward("math", check=_check, gold=lambda sample: f"\\boxed{{{sample.ground_truth}}}", wrong=_wrong)
def math(
    sample: Sample,
    *,
    right: float = 1.25,
    wrong: float = -1.0,
    deadline_s: float = 5.0,
    max_chars: int = 2000,
    workers: int = 2,
) -> Verdict | Awaitable[Verdict]:
    """Right if the answer, or what its last box holds, equals the ground truth mathematically.

    Raises:
        WorkerTimeoutError: no decision in time; the row abstains.
        RewardError: the ground truth cannot be read.
    """
    if sample.answer is None or len(sample.answer) > max_chars:
        return Verdict(wrong, False)
    answer = last_boxed(sample.answer) or sample.answer
    truth = last_boxed(sample.ground_truth) or sample.ground_truth.strip()
    numbers = plain_number(truth), plain_number(answer)
    if truth == answer or None not in numbers:
        correct = truth == answer or numbers[0] == numbers[1]
        return Verdict(right if correct else wrong, correct)
    return _ask_child(sample, truth, answer, right, wrong, deadline_s, workers)


async def _ask_child(
    sample: Sample, truth: str, answer: str, right: float, wrong: float, deadline_s: float, workers: int
) -> Verdict:
    correct = await _pool(workers).call(deadline_s, truth, answer)
    if correct is None:
        raise RewardError(f"{sample.where}: math-verify cannot read the ground truth {sample.ground_truth!r}")
    return Verdict(right if correct else wrong, correct)
