"""What verl calls for every response: format, then the routed reward function, then one fixed numeric schema.

A mistake in the recipe or the data (``ConfigError``, ``DataError``, ``RewardError``) stops the run. Anything else that
goes wrong while a response is judged (the judge is down, the time is up, a function raises or returns NaN) abstains:
the row is marked, never scored.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from verl_air.errors import ConfigError, DataError, RewardError
from verl_air.rewards import blocked_loop
from verl_air.rewards.format import FormatRule, Style
from verl_air.rewards.judge import JudgeClient, client_for
from verl_air.rewards.judge.verdicts import MASSES
from verl_air.rewards.registry import BoundReward, get_reward
from verl_air.rewards.routes import plan_for
from verl_air.rewards.types import ABSTAIN, Sample, ThrottledLog, Verdict

log = ThrottledLog(logging.getLogger(__name__))

_TOLERANCE = 1e-6
_SELF_CHECK_DEADLINE_S = 60.0


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **reward_kwargs: Any,
) -> dict[str, float]:
    """Score one response (verl: ``reward.custom_reward_function``, ``path=pkg://verl_air.rewards``).

    Args:
        data_source, solution_str, ground_truth, extra_info: from the row and the rollout.
        reward_router_address, reward_model_tokenizer: given by verl when it serves a reward model.
        reward_kwargs: of the recipe; see :class:`~verl_air.rewards.routes.ScoringPlan`.

    Returns:
        Exactly the keys of :data:`~verl_air.rewards.REWARD_KEYS`.

    Raises:
        ConfigError: the recipe cannot work.
        RewardError: no route matches, the row lacks something, or a function left its declared range.
    """
    plan = plan_for(reward_kwargs)
    extra = extra_info or {}
    bound = plan.reward_for(data_source, extra)
    answer, judged = plan.format.read(solution_str, str(extra.get("domain") or data_source.partition("/")[0]))
    sample = Sample(solution_str, answer, answer is not None, str(ground_truth), data_source, extra, judged)
    client, settings = None, plan.judge_of(bound)
    if bound.reward.wants_judge:
        client = client_for(settings, reward_router_address, reward_model_tokenizer)
    masses: list[float] = []
    MASSES.set(masses)
    if judged is None:  # a blank response or an unfinished thought: the worst, and nobody is asked
        verdict: Verdict | None = Verdict(bound.low, False)
    else:
        verdict = await _decide(bound, sample, client, settings.deadline_s)
    format_reward, (format_min, format_max) = plan.format.reward(answer), plan.format.range
    task_reward = math.nan if verdict is None else float(verdict.reward)
    return {
        "score": task_reward + (0.0 if math.isnan(format_reward) else format_reward),
        "acc": math.nan if verdict is None else float(verdict.right),
        "format_ok": float(sample.format_ok),
        "abstained": float(verdict is None),
        "task_reward": task_reward,
        "format_reward": format_reward,
        "score_min": bound.low + format_min,
        "score_max": bound.high + format_max,
        "task_min": bound.low,
        "task_max": bound.high,
        "judge_mass": fmean(masses) if masses else math.nan,
        "judge": float(list(plan.judges).index(bound.judge)) if bound.judge else math.nan,
    }


def self_check(
    name: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    style: Style = "think_answer",
) -> str | None:
    """Check one row: its gold answer, written in a response style, scores the maximum, a wrong one less.

    Returns:
        What is wrong, or ``None`` if all is well or the function writes no gold answer (judges).

    Raises:
        ConfigError: there is no such function, or it has no such option.
    """
    bound = get_reward(name).bind(options or {})
    info = {"domain": "", "split": "", **(extra_info or {})}
    row = Sample("", None, False, ground_truth, f"{info['domain']}/{info['split']}", info)
    for writer, is_gold in ((bound.reward.gold, True), (bound.reward.wrong, False)):
        if writer is None:
            continue
        written = writer(row)
        rule = FormatRule(style=style)
        response = rule.write(written)
        answer, judged = rule.read(response, str(info["domain"]))
        sample = Sample(response, answer, answer is not None, ground_truth, row.data_source, info, judged)
        verdict = asyncio.run(_decide(bound, sample, None, _SELF_CHECK_DEADLINE_S))
        outcome = "abstains" if verdict is None else f"scores {verdict.reward:g}"
        if is_gold and (verdict is None or not verdict.right or verdict.reward < bound.high):
            return f"{name}: the gold answer {written!r} {outcome}, not the maximum {bound.high:g}"
        if not is_gold and verdict is not None and (verdict.right or verdict.reward >= bound.high):
            return f"{name}: the wrong answer {written!r} {outcome}"
    return None


async def _decide(bound: BoundReward, sample: Sample, judge: JudgeClient | None, deadline_s: float) -> Verdict | None:
    """Run a reward function on a sample; ``None`` if it abstains or fails."""
    reward = bound.reward
    outcome: Any
    arguments = {**bound.options, "judge": judge} if reward.wants_judge else bound.options
    blocked_loop.note_progress()
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
