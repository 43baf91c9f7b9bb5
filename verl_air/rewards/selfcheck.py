"""A verifier must accept its own gold answer: run over every row before training."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from verl_air.rewards.decide import decide
from verl_air.rewards.format import FormatRule
from verl_air.rewards.registry import get_reward
from verl_air.rewards.reward import AnswerWriter, BoundReward
from verl_air.rewards.types import Sample, Verdict

_DEADLINE_S = 60.0


def self_check(
    name: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    options: Mapping[str, Any] | None = None,
) -> str | None:
    """Check one row: its gold answer scores the maximum, a wrong one less.

    Returns:
        What is wrong, or ``None`` if all is well or the function has no gold answer to offer (judges).

    Raises:
        ConfigError: there is no such function, or it has no such option.
    """
    bound = get_reward(name).bind(options or {})
    for writer, expected in ((bound.reward.gold, True), (bound.reward.wrong, False)):
        if writer is None:
            continue
        response, verdict = _try(bound, writer, ground_truth, extra_info or {})
        told = "abstains" if verdict is None else f"scores {verdict.reward:g}"
        if expected and (verdict is None or not verdict.right or verdict.reward < bound.high):
            return f"{name}: the gold answer {response!r} {told}, not the maximum {bound.high:g}"
        if not expected and verdict is not None and (verdict.right or verdict.reward >= bound.high):
            return f"{name}: the wrong answer {response!r} {told}"
    return None


def _try(
    bound: BoundReward, writer: AnswerWriter, ground_truth: str, extra_info: Mapping[str, Any]
) -> tuple[str, Verdict | None]:
    info = {"domain": "", "split": "", **extra_info}
    blank = Sample("", None, False, ground_truth, f"{info['domain']}/{info['split']}", info)
    text = writer(blank)
    response = f"<think>The answer is known.</think><answer>{text}</answer>"
    answer = FormatRule().parse(response, str(info["domain"]))
    sample = Sample(response, answer, answer is not None, ground_truth, blank.data_source, info)
    return text, asyncio.run(decide(bound, sample, None, _DEADLINE_S))
