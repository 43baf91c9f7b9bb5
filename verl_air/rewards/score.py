"""What verl calls for every response: format, then the routed reward function, then one fixed numeric schema."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards.decide import decide
from verl_air.rewards.format import FormatRule
from verl_air.rewards.judge import client_for
from verl_air.rewards.plan import plan_for
from verl_air.rewards.reward import BoundReward
from verl_air.rewards.types import Sample, Verdict


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
    plan = plan_for(routes, modules, options, format, judge)
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
