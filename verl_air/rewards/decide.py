"""One reward function on one sample: a verdict within the declared range, or none.

A mistake in the recipe or the data (``ConfigError``, ``DataError``, ``RewardError``) stops the run. Anything else that
goes wrong while a response is judged (the judge is down, the time is up, a function raises or returns NaN) abstains:
the row is marked, never scored.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from typing import Any

from verl_air.errors import ConfigError, DataError, RewardError
from verl_air.rewards.judge import JudgeClient
from verl_air.rewards.reward import BoundReward
from verl_air.rewards.throttle import ThrottledLog
from verl_air.rewards.types import ABSTAIN, Sample, Verdict

log = ThrottledLog(logging.getLogger(__name__))

_TOLERANCE = 1e-6


async def decide(bound: BoundReward, sample: Sample, judge: JudgeClient | None, deadline_s: float) -> Verdict | None:
    """Run a reward function on a sample; ``None`` if it abstains or fails.

    Raises:
        ConfigError, DataError, RewardError: see the module.
    """
    reward = bound.reward
    outcome: Any
    arguments = {**bound.options, "judge": judge} if reward.wants_judge else bound.options
    try:
        if reward.blocking:
            outcome = asyncio.to_thread(reward.call, sample, **arguments)
        else:
            outcome = reward.call(sample, **arguments)
        if inspect.isawaitable(outcome):
            outcome = await asyncio.wait_for(outcome, deadline_s)
    except (ConfigError, DataError, RewardError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no verdict on the response
        kind = f"{reward.name}/{type(error).__name__}"
        log.warning(kind, f"reward {reward.name!r} abstains on {sample.where}: {type(error).__name__}: {error}")
        return None
    return _checked(bound, sample, outcome)


def _checked(bound: BoundReward, sample: Sample, outcome: Any) -> Verdict | None:
    """Turn what a function returned into a verdict within its declared range."""
    name = bound.reward.name
    if isinstance(outcome, str) and outcome == ABSTAIN:
        return None
    if isinstance(outcome, Verdict):
        verdict = outcome
    elif isinstance(outcome, int | float) and not isinstance(outcome, bool):
        verdict = Verdict(float(outcome), float(outcome) >= bound.high - _TOLERANCE)
    else:
        raise RewardError(f"reward {name!r} returned {outcome!r}; return a Verdict, a number or {ABSTAIN!r}")
    if math.isnan(verdict.reward):
        log.warning(f"{name}/nan", f"reward {name!r} abstains on {sample.where}: it returned NaN")
        return None
    if not bound.low - _TOLERANCE <= verdict.reward <= bound.high + _TOLERANCE:
        raise RewardError(
            f"reward {name!r} returned {verdict.reward} for {sample.where}, outside its declared range "
            f"[{bound.low}, {bound.high}]; correct reward_range in register_reward"
        )
    return verdict
