"""Scoring: options, failure rules, and the schema that verl gets (routes: test_routes.py)."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.rewards.support import assert_sound, finish, respond, row, score
from verl_air.errors import ConfigError, RewardError
from verl_air.rewards import ABSTAIN, REWARD_KEYS, Sample, Verdict, compute_score, register_reward

pytestmark = pytest.mark.usefixtures("own_registry")


def register(name: str, outcome: Any, **options: Any) -> None:
    def function(sample: Sample) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    register_reward(name, **{"reward_range": (-1.0, 1.0), **options})(function)


def test_right_and_wrong_answers_get_the_papers_rewards() -> None:
    right = score("multiple_choice", respond("B"), "B")
    expected = (2.5, 1.0, 1.0, 0.0, 1.25, 1.25, -2.0, 2.5, -1.0, 1.25, math.nan, math.nan)
    assert right == dict(zip(REWARD_KEYS, expected, strict=True))
    wrong = score("multiple_choice", respond("A"), "B")
    assert (wrong["score"], wrong["acc"], wrong["format_ok"]) == (0.25, 0.0, 1.0)
    unformatted = score("multiple_choice", "B", "B")
    assert (unformatted["score"], unformatted["acc"], unformatted["format_ok"]) == (-2.0, 0.0, 0.0)


def test_magnitudes_are_options_and_move_the_range() -> None:
    result = score("multiple_choice", respond("B"), "B", right=3.0, wrong=-0.5)
    assert (result["task_reward"], result["task_min"], result["task_max"]) == (3.0, -0.5, 3.0)


def test_an_unknown_key_of_reward_kwargs_is_refused() -> None:
    with pytest.raises(ConfigError, match="route"):
        finish(compute_score("a/id", "x", "", row(), routes={"*/*": "format"}, route={}))
    with pytest.raises(ConfigError, match="routes is not set"):
        finish(compute_score("a/id", "x", "", row()))


def test_modules_register_a_users_own_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "from verl_air.rewards import Sample, register_reward\n"
        "@register_reward('brevity', reward_range=(0.0, 1.0))\n"
        "def brevity(sample: Sample, *, limit: int = 5):\n"
        "    return float(len(sample.response) <= limit)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "my_rewards", None)
    monkeypatch.delitem(sys.modules, "my_rewards")
    routes = {"*/*": {"name": "brevity", "limit": 3}}
    for text, right in (("abc", 1.0), ("abcd", 0.0)):
        result = finish(compute_score("a/id", text, "", row(), routes=routes, modules=["my_rewards"]))
        assert result["acc"] == right


@pytest.mark.parametrize("outcome", [ABSTAIN, math.nan, ValueError("odd"), RecursionError(), KeyError("x"), OSError()])
def test_what_cannot_decide_abstains_and_is_never_a_number(outcome: Any) -> None:
    register("odd", outcome)
    result = score("odd", respond("x"), "")
    assert result["abstained"] == 1.0
    assert result["format_reward"] == 1.25
    assert_sound(result)


def test_abstention_says_why(caplog: pytest.LogCaptureFixture) -> None:
    register("odd_reason", ZeroDivisionError("by zero"))
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            score("odd_reason", respond("x"), "")
    assert "odd_reason" in caplog.text
    assert "by zero" in caplog.text
    assert len(caplog.records) == 1, "a fault that comes in hundreds is logged once"


@pytest.mark.parametrize("outcome", [None, "good", True, {"score": 1.0}, 1.5, math.inf, Verdict(-1.1, False)])
def test_a_mistake_in_a_function_stops_the_run(outcome: Any) -> None:
    register("mistaken", outcome)
    with pytest.raises(RewardError, match="mistaken"):
        score("mistaken", respond("x"), "")


@pytest.mark.parametrize("error", [ConfigError("c"), RewardError("r")])
def test_misconfiguration_propagates(error: Exception) -> None:
    register("misconfigured", error)
    with pytest.raises(type(error)):
        score("misconfigured", respond("x"), "")


@pytest.mark.parametrize(("number", "right"), [(0.99, 0.0), (1, 1.0)])
def test_a_plain_number_is_right_only_at_the_maximum(number: float, right: float) -> None:
    register("plain", number)
    assert score("plain", respond("x"), "")["acc"] == right


def test_a_coroutine_that_never_ends_and_a_thread_that_lingers_abstain() -> None:
    @register_reward("endless", reward_range=(0.0, 1.0))
    async def endless(sample: Sample) -> float:
        await asyncio.sleep(3600)
        return 1.0

    @register_reward("lingering", reward_range=(0.0, 1.0), blocking=True)
    def lingering(sample: Sample) -> float:
        time.sleep(0.5)
        return 1.0

    async def both(name: str, deadline: float) -> float:
        kwargs = {"routes": {"*/*": name}, "judge": {"deadline_s": deadline}}
        return (await compute_score("a/id", "x", "", row(), **kwargs))["abstained"]

    assert asyncio.run(both("endless", 0.05)) == 1.0
    assert asyncio.run(both("lingering", 0.05)) == 1.0
    assert asyncio.run(both("lingering", 30.0)) == 0.0


def test_a_judge_route_without_a_judge_stops_the_run() -> None:
    routes = {"*/*": {"name": "verdict_judge", "template": "{response}"}}
    with pytest.raises(ConfigError, match=r"reward\.reward_model\.enable"):
        asyncio.run(compute_score("a/id", respond("x"), "", row(), routes=routes))


@pytest.mark.parametrize("extras", ["[1]", "{", "3"])
def test_malformed_extras_name_the_row(extras: str) -> None:
    with pytest.raises(RewardError, match=r"row 0 .intent z0. of 'lab/train'"):
        score("multiple_choice", respond("A"), "A", {**row(), "extras": extras})


@pytest.mark.parametrize(
    ("name", "options", "function", "message"),
    [
        ("a", {"reward_range": (0.0, 1.0)}, lambda sample, limit: 0.0, "keyword-only"),
        ("a", {"reward_range": (0.0, 1.0)}, lambda: 0.0, "sample"),
        ("a", {}, lambda sample: 0.0, "reward_range"),
        ("math", {"reward_range": (0.0, 1.0)}, lambda sample: 0.0, "already registered"),
    ],
)
def test_registration_refuses_what_it_cannot_call(name: str, options: Any, function: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        register_reward(name, **options)(function)
