"""One reward function, read from its signature: which options it has, whether it asks a judge, what its range is."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards.types import Outcome, Sample

RewardCallable = Callable[..., Outcome | Awaitable[Outcome]]
Range = tuple[float, float]
AnswerWriter = Callable[[Sample], str]


@dataclass(frozen=True)
class Reward:
    """A registered reward function; see :func:`verl_air.rewards.register_reward` for the fields."""

    name: str
    call: RewardCallable
    defaults: Mapping[str, Any]
    required: frozenset[str]
    wants_judge: bool
    blocking: bool
    range_of: Callable[..., Range]
    check: Callable[..., None] | None
    gold: AnswerWriter | None
    wrong: AnswerWriter | None

    def bind(self, options: Mapping[str, Any]) -> BoundReward:
        """Join the recipe's options with the defaults.

        Raises:
            ConfigError: an option is unknown, missing or of the wrong type, or the function's own check refuses it.
        """
        known = [*self.required, *self.defaults]
        if unknown := sorted(set(options) - set(known)):
            raise ConfigError(
                f"reward {self.name!r}: unknown option {unknown[0]!r}{closest(unknown[0], known)}; "
                f"known: {', '.join(sorted(known)) or 'none'}"
            )
        if missing := sorted(self.required - set(options)):
            raise ConfigError(f"reward {self.name!r}: option {missing[0]!r} has no default, so the route must give it")
        merged = {**self.defaults, **options}
        for name, value in merged.items():
            default = self.defaults.get(name)
            if isinstance(default, float) and not (isinstance(value, int | float) and not isinstance(value, bool)):
                raise ConfigError(f"reward {self.name!r}: option {name!r} must be a number, got {value!r}")
        if self.check is not None:
            self.check(**merged)
        low, high = self.range_of(**merged)
        if not float(low) < float(high):
            raise ConfigError(f"reward {self.name!r}: the worst reward ({low}) must be below the best ({high})")
        return BoundReward(self, MappingProxyType(merged), float(low), float(high))


@dataclass(frozen=True)
class BoundReward:
    """A reward function with its options, and the range of the task reward they lead to."""

    reward: Reward
    options: Mapping[str, Any]
    low: float
    high: float


def describe(
    name: str,
    function: RewardCallable,
    reward_range: Range | Callable[..., Range] | None,
    blocking: bool,
    check: Callable[..., None] | None,
    gold: AnswerWriter | None,
    wrong: AnswerWriter | None,
) -> Reward:
    """Read a function; see :func:`verl_air.rewards.register_reward` for the arguments.

    Raises:
        ConfigError: its signature cannot be used, or its range is not known.
    """
    parameters = dict(inspect.signature(function).parameters)
    if not parameters or next(iter(parameters)) == "judge":
        raise ConfigError(f"reward {name!r}: the first parameter of {origin(function)} must take the sample")
    del parameters[next(iter(parameters))]
    wants_judge = parameters.pop("judge", None) is not None
    for parameter in parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise ConfigError(
                f"reward {name!r}: parameter {parameter.name!r} of {origin(function)} must be keyword-only "
                "(put it after a bare *)"
            )
    empty = inspect.Parameter.empty
    required = frozenset(key for key, value in parameters.items() if value.default is empty)
    defaults = {key: value.default for key, value in parameters.items() if value.default is not empty}
    return Reward(
        name=name,
        call=function,
        defaults=MappingProxyType(defaults),
        required=required,
        wants_judge=wants_judge,
        blocking=blocking,
        range_of=_range_function(name, reward_range, {*required, *defaults}),
        check=check,
        gold=gold,
        wrong=wrong,
    )


def _range_function(
    name: str, reward_range: Range | Callable[..., Range] | None, options: set[str]
) -> Callable[..., Range]:
    if callable(reward_range):
        return reward_range
    if reward_range is not None:
        low, high = reward_range
        return lambda **_: (low, high)
    if not {"right", "wrong"} <= options:
        raise ConfigError(
            f"reward {name!r}: give reward_range=(lowest, highest), or let the function have the options "
            "`right` and `wrong`"
        )
    return lambda *, right, wrong, **_: (wrong, right)


def origin(function: RewardCallable) -> str:
    """Names a function in messages."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def closest(name: str, known: Iterable[str]) -> str:
    """A hint at names that look alike, for messages."""
    matches = difflib.get_close_matches(name, list(known), n=2)
    return f" (did you mean {' or '.join(repr(match) for match in matches)}?)" if matches else ""
