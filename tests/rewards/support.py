"""Short ways to score one response."""

from __future__ import annotations

import json
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from verl_air.rewards import REWARD_KEYS, compute_score

# Rules that anchors may use, each with a gold answer; and the options of a multiple choice.
RULES = {
    "multiple_choice": "B",
    "true_false": "true",
    "exact_match": "Harmful",
    "format": "",
    "refusal_keywords": "",
}
# One object per rule, as verl passes the same with every call: what is compiled of it is compiled once.
ROUTES = {name: {"*/*": {"name": name}} for name in RULES}
OPTIONS = ["Paris", "London", "Rome", "E. coli"]

T = TypeVar("T")


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, as those of the rules must not."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("it waited for something")


def row(domain: str = "lab", role: str = "anchor", split: str = "train", **extras: Any) -> dict[str, Any]:
    return {"index": 0, "intent_id": "z0", "role": role, "domain": domain, "split": split, "extras": json.dumps(extras)}


def respond(answer: str) -> str:
    return f"<think>Some thought.</think>\n<answer>{answer}</answer>"


def score(
    name: str, response: str, truth: str, extra: dict[str, Any] | None = None, **options: Any
) -> dict[str, float]:
    extra = extra or row()
    source = f"{extra['domain']}/{extra['split']}"
    routes = {"*/*": {"name": name, **options}} if options else ROUTES.get(name, {"*/*": {"name": name}})
    return finish(compute_score(source, response, truth, extra, routes=routes))


def assert_sound(result: dict[str, float]) -> None:
    """The fixed schema, and every number inside its range or NaN by abstention."""
    assert tuple(result) == REWARD_KEYS
    assert all(type(value) is float for value in result.values())
    assert result["score_min"] < result["score_max"]
    assert result["task_min"] < result["task_max"]
    assert result["format_ok"] in (0.0, 1.0)
    if result["abstained"]:
        assert all(math.isnan(result[key]) for key in ("score", "acc", "task_reward"))
        return
    assert result["abstained"] == 0.0
    assert result["acc"] in (0.0, 1.0)
    assert result["task_min"] <= result["task_reward"] <= result["task_max"]
    assert result["score_min"] <= result["score"] <= result["score_max"]
    assert result["score"] == result["task_reward"] + result["format_reward"]
