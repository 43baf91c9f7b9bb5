r"""``math``: the answer equals the ground truth mathematically.

`math_equality.compare` says what equal means (percent, currency, units, sets, tuples, relations) and decides nearly
every answer at once, by exact arithmetic. What only symbolics can decide goes to the library math-verify, in a child
process that is killed when its time is up: after ``deadline_s`` of its own processor time, so that busy neighbours do
not count, or 1.6 times that by the clock. Then the row abstains. An answer longer than ``max_chars`` is wrong, since
no right answer is that long. A ground truth that neither can read equals its own text alone.
"""

from collections.abc import Awaitable
from functools import cache, lru_cache
from importlib.util import find_spec

from reward_fns.answer_text import final_answer
from reward_fns.math_equality.compare import compare
from reward_fns.math_equality.forms import read
from reward_fns.math_equality.text import clean
from verl_air.rewards import ConfigError, RewardError, Sample, Verdict, WorkerPool, register_reward


@cache
def _pool(workers: int) -> WorkerPool:
    return WorkerPool("reward_fns.math_equality.child:compare", size=workers)


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
    require_units: bool = False,
) -> Verdict | Awaitable[Verdict]:
    """Right if the answer, or what its last box holds, equals the ground truth mathematically.

    Args:
        require_units: a unit of the ground truth must be given. Otherwise it may be left out; a wrong one never counts.

    Raises:
        WorkerTimeoutError: no decision in time; the row abstains.
        RewardError: the ground truth is empty.
    """
    if sample.answer is None or len(sample.answer) > max_chars:
        return Verdict(wrong, False)
    truth = _clean(sample.ground_truth)
    if not truth:
        raise RewardError(f"{sample.where}: the ground truth {sample.ground_truth!r} holds no answer; correct the data")
    answer = _clean(sample.answer)
    if answer and any("\\begin{" in text for text in (sample.ground_truth, sample.answer)):
        # A matrix: its rows and columns are math-verify's to read.
        raw = [final_answer(text) or "" for text in (sample.ground_truth, sample.answer)]
        return _ask_child(raw[0], raw[1], right, wrong, deadline_s, workers)
    correct = bool(answer) and (truth == answer or compare(read(truth), read(answer), require_units))
    if correct is None:
        return _ask_child(truth, answer, right, wrong, deadline_s, workers)
    return Verdict(right if correct else wrong, correct)


@lru_cache(maxsize=4096)
def _clean(text: str) -> str:
    found = final_answer(text)
    return clean(found) if found else ""


async def _ask_child(truth: str, answer: str, right: float, wrong: float, deadline_s: float, workers: int) -> Verdict:
    correct = bool(await _pool(workers).call(deadline_s, truth, answer))
    return Verdict(right if correct else wrong, correct)
