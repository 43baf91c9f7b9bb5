"""What verl calls for every response: format, then the routed reward function, then one fixed numeric schema.

Failure rules. A mistake in the recipe or the data (``ConfigError``, ``DataError``, ``RewardError``) stops the run.
Anything else that goes wrong while a response is judged (the judge is down, the time is up, a function raises or
returns NaN) abstains: the row is marked, never scored.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from verl_air.errors import ConfigError, DataError, RewardError
from verl_air.rewards.format import FormatRule
from verl_air.rewards.judge import JudgeClient, JudgeSettings, client_for
from verl_air.rewards.registry import BoundReward, import_modules
from verl_air.rewards.routes import Routes
from verl_air.rewards.throttle import ThrottledLog
from verl_air.rewards.types import ABSTAIN, Sample, Verdict

log = ThrottledLog(logging.getLogger(__name__))

_TOLERANCE = 1e-6
_MAX_PLANS = 32


class Plan:
    """The recipe's ``reward_kwargs``, checked and compiled."""

    def __init__(
        self,
        routes: Mapping[str, Any],
        modules: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        format: Mapping[str, Any] | None = None,
        judge: Mapping[str, Any] | None = None,
    ) -> None:
        import_modules(_plain(modules) or ())
        self.routes = Routes(_plain(routes), _plain(options))
        self.format = FormatRule.from_settings(_plain(format))
        self.judge = JudgeSettings.from_mapping(_plain(judge))


def validate_routes(
    routes: Mapping[str, Any],
    modules: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    format: Mapping[str, Any] | None = None,
    judge: Mapping[str, Any] | None = None,
) -> None:
    """Check a recipe's ``reward_kwargs`` before anything starts; needs neither verl nor a server.

    Raises:
        ConfigError: what is wrong and what is registered.
    """
    Plan(routes, modules, options, format, judge)


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    routes: Mapping[str, Any] | None = None,
    modules: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    format: Mapping[str, Any] | None = None,
    judge: Mapping[str, Any] | None = None,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **unknown: Any,
) -> dict[str, float]:
    """Score one response (verl: ``reward.custom_reward_function``, ``path=pkg://verl_air.rewards``).

    Args:
        data_source, solution_str, ground_truth, extra_info: from the row and the rollout.
        routes: ``<domain>/<role>[/<split>]`` -> name, or ``{name: ..., option: ...}``.
        modules: modules to import, so that they register functions of yours.
        options: name -> options, for every route to that name.
        format: see :class:`~verl_air.rewards.format.FormatRule`.
        judge: see :class:`~verl_air.rewards.JudgeSettings`.
        reward_router_address, reward_model_tokenizer: given by verl when it serves a reward model.

    Returns:
        Exactly the keys of :data:`~verl_air.rewards.REWARD_KEYS`.

    Raises:
        ConfigError: the recipe cannot work.
        RewardError: no route fits, the row lacks something, or a function left its declared range.
    """
    if unknown:
        raise ConfigError(
            f"reward_kwargs: unknown key(s) {', '.join(sorted(unknown))}; "
            "known: routes, modules, options, format, judge"
        )
    plan = _plan_for(routes, modules, options, format, judge)
    extra = extra_info or {}
    bound = plan.routes.find(data_source, extra)
    domain = str(extra.get("domain") or data_source.partition("/")[0])
    answer = plan.format.parse(solution_str, domain)
    sample = Sample(
        response=solution_str,
        answer=answer,
        format_ok=answer is not None,
        ground_truth=str(ground_truth),
        data_source=data_source,
        extra_info=extra,
    )
    client = None
    if bound.reward.wants_judge:
        client = client_for(plan.judge, reward_router_address, reward_model_tokenizer)
    verdict = await decide(bound, sample, client, plan.judge.deadline_s)
    return _assemble(sample, bound, verdict, plan.format)


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


def _assemble(sample: Sample, bound: BoundReward, verdict: Verdict | None, rule: FormatRule) -> dict[str, float]:
    format_reward = rule.right if sample.format_ok else rule.wrong
    task_reward = math.nan if verdict is None else float(verdict.reward)
    return {
        "score": task_reward + format_reward,
        "acc": math.nan if verdict is None else float(verdict.right),
        "format_ok": float(sample.format_ok),
        "abstained": float(verdict is None),
        "task_reward": task_reward,
        "format_reward": format_reward,
        "score_min": bound.low + rule.wrong,
        "score_max": bound.high + rule.right,
        "task_min": bound.low,
        "task_max": bound.high,
    }


_PLANS: dict[tuple[int, ...], tuple[tuple[Any, ...], Plan]] = {}


def _plan_for(*settings: Any) -> Plan:
    """Compile the settings once: verl passes the same objects with every call, so their identity is the key.

    The objects are kept beside the plan, so an identity is never reused while it is a key.
    """
    key = tuple(map(id, settings))
    known = _PLANS.get(key)
    if known is None:
        if settings[0] is None:
            raise ConfigError("reward.custom_reward_function.reward_kwargs.routes is not set; see docs/rewards.md")
        while len(_PLANS) >= _MAX_PLANS:
            del _PLANS[next(iter(_PLANS))]
        known = _PLANS[key] = (settings, Plan(*settings))
    return known[1]


def _plain(value: Any) -> Any:
    """Plain containers for OmegaConf's."""
    if type(value).__module__.startswith("omegaconf"):
        from omegaconf import OmegaConf

        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
