"""The names that routes may use, and the functions behind them.

Three kinds of module register here, each imported once: the shipped ones (`reward_fns`), installed plugins (entry-point
group ``verl_air.plugins``) and the modules that a recipe names (``reward_kwargs.modules``).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from verl_air.errors import ConfigError
from verl_air.extensions import load_plugins
from verl_air.rewards.types import Outcome, Sample

SHIPPED = "reward_fns"

RewardCallable = Callable[..., Outcome | Awaitable[Outcome]]
Range = tuple[float, float]
AnswerWriter = Callable[[Sample], str]
F = TypeVar("F", bound=RewardCallable)


@dataclass(frozen=True)
class Reward:
    """A registered reward function; see :func:`register_reward` for the fields."""

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
                f"reward {self.name!r}: unknown option {unknown[0]!r}{_closest(unknown[0], known)}; "
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


_REGISTRY: dict[str, Reward] = {}


def register_reward(
    name: str,
    *,
    reward_range: Range | Callable[..., Range] | None = None,
    blocking: bool = False,
    check: Callable[..., None] | None = None,
    gold: AnswerWriter | None = None,
    wrong: AnswerWriter | None = None,
) -> Callable[[F], F]:
    """Register a reward function under a name that routes can use.

    The function is called as ``fn(sample, **options)`` and may be a coroutine function, or
    return an awaitable only where it has to wait. Its keyword-only parameters are
    its options, which a recipe can set. A parameter named ``judge`` receives the judge's client.

    Args:
        name: unique; letters of your own namespace are wise, ``"acme_toxicity"``.
        reward_range: lowest and highest task reward, or a function of the options that tells them. Without it, the
            options ``wrong`` and ``right`` are the range.
        blocking: run a function that is not a coroutine function in a thread, because it waits or computes for long.
        check: called with all options before training starts; raises ``ConfigError`` if they cannot work.
        gold, wrong: write an answer that must score the maximum, and one that must not, for a given row. They make
            ``verl-air check`` prove the data file.

    Raises:
        ConfigError: the name is taken by another function, or the signature cannot be used.
    """

    def decorator(function: F) -> F:
        entry = _describe(name, function, reward_range, blocking, check, gold, wrong)
        existing = _REGISTRY.get(name)
        if existing is not None and _origin(existing.call) != _origin(function):
            raise ConfigError(
                f"reward {name!r} is already registered by {_origin(existing.call)}; "
                f"{_origin(function)} needs another name"
            )
        _REGISTRY[name] = entry
        return function

    return decorator


def get_reward(name: str) -> Reward:
    """Look a name up, shipped functions and plugins included.

    Raises:
        ConfigError: nothing of that name; the message lists what is registered.
    """
    _load_standard_modules()
    try:
        return _REGISTRY[name]
    except KeyError:
        raise ConfigError(
            f"no reward named {name!r}{_closest(name, _REGISTRY)}; registered: {', '.join(reward_names())}. "
            "Your own module must be listed in reward_kwargs.modules."
        ) from None


def reward_names() -> list[str]:
    """All registered names, sorted."""
    _load_standard_modules()
    return sorted(_REGISTRY)


def import_modules(modules: Iterable[str]) -> None:
    """Import the modules that a recipe names, so that they register their functions.

    Raises:
        ConfigError: there is no such module.
    """
    if isinstance(modules, str):
        raise ConfigError(f"modules must be a list, got the string {modules!r}; write [{modules}]")
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"modules: cannot import {module!r} ({error}). Ray workers need it too: install its package "
                "(`pip install -e .`), or set PYTHONPATH before Ray starts, or ship it with "
                "+ray_kwargs.ray_init.runtime_env.working_dir=..."
            ) from error


def _describe(
    name: str,
    function: RewardCallable,
    reward_range: Range | Callable[..., Range] | None,
    blocking: bool,
    check: Callable[..., None] | None,
    gold: AnswerWriter | None,
    wrong: AnswerWriter | None,
) -> Reward:
    parameters = dict(inspect.signature(function).parameters)
    if not parameters or next(iter(parameters)) == "judge":
        raise ConfigError(f"reward {name!r}: the first parameter of {_origin(function)} must take the sample")
    del parameters[next(iter(parameters))]
    wants_judge = parameters.pop("judge", None) is not None
    for parameter in parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise ConfigError(
                f"reward {name!r}: parameter {parameter.name!r} of {_origin(function)} must be keyword-only "
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


@cache
def _load_standard_modules() -> None:
    """Import the shipped functions and the installed plugins; a failure is raised, never passed over."""
    shipped = importlib.import_module(SHIPPED)
    for module in pkgutil.iter_modules(shipped.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{SHIPPED}.{module.name}")
    load_plugins()


def _origin(function: RewardCallable) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _closest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=2)
    return f" (did you mean {' or '.join(repr(match) for match in matches)}?)" if matches else ""
