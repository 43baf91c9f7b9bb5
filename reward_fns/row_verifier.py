"""``row_verifier``: the rule that the row itself names, in ``extras.verifier``.

For data files whose anchors come in several formats. Judges cannot be named so: a row is data, and does not choose who
judges it.
"""

from collections.abc import Awaitable
from functools import lru_cache
from typing import Any

from verl_air.rewards import Outcome, RewardError, Sample, get_reward, register_reward


@lru_cache(maxsize=256)
def _rule(name: str, right: float, wrong: float) -> tuple[Any, dict[str, Any]]:
    bound = get_reward(name).bind({"right": right, "wrong": wrong})
    if bound.reward.wants_judge or name == "row_verifier":
        raise RewardError(f"row_verifier: a row names {name!r} as its verifier, which is no rule; correct the data")
    return bound.reward.call, dict(bound.options)


@register_reward("row_verifier")
def row_verifier(sample: Sample, *, right: float = 1.25, wrong: float = -1.0) -> Outcome | Awaitable[Outcome]:
    """What the row's own rule says, with these magnitudes.

    Raises:
        RewardError: the row names no verifier, or one that is no rule.
        ConfigError: nothing of that name is registered.
    """
    name = sample.extras.get("verifier")
    if not isinstance(name, str):
        raise RewardError(f"{sample.where}: extras name no verifier; route these rows to a rule of their own")
    rule, options = _rule(name, right, wrong)
    return rule(sample, **options)
