"""The names that routes may use, and the functions behind them.

Three kinds of module register here, each imported once: the shipped ones (`reward_fns`), installed plugins (entry-point
group ``verl_air.plugins``) and the modules that a recipe names (``reward_kwargs.modules``).
"""

from __future__ import annotations

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
from verl_air.settings import closest

SHIPPED = "reward_fns"

RewardCallable = Callable[..., Outcome | Awaitable[Outcome]]
Range = tuple[float, float]
AnswerWriter = Callable[[Sample], str]
F = TypeVar("F", bound=RewardCallable)

_REGISTRY: dict[str, Reward] = {}


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

    @property
    def option_names(self) -> list[str]:
        """The options that a recipe can set, sorted."""
        return sorted([*self.required, *self.defaults])

    def bind(self, options: Mapping[str, Any]) -> BoundReward:
        """Join the recipe's options with the defaults.

        Raises:
            ConfigError: an option is unknown, missing or of the wrong type, or the function's own check refuses it.
        """
        known, options, judge = self.option_names, dict(options), None
        if self.wants_judge and (judge := options.pop("judge", None)) is not None and not isinstance(judge, str):
            raise ConfigError(f"reward {self.name!r}: judge must be the name of a judge, got {judge!r}")
        if unknown := sorted(set(options) - set(known)):
            raise ConfigError(
                f"reward {self.name!r}: unknown option {unknown[0]!r}{closest(unknown[0], known)}; "
                f"known: {', '.join(known) or 'none'}"
            )
        if missing := sorted(self.required - set(options)):
            raise ConfigError(f"reward {self.name!r}: option {missing[0]!r} has no default; set it")
        merged = {**self.defaults, **options}
        for name, value in merged.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if isinstance(self.defaults.get(name), float) and not is_number:
                raise ConfigError(f"reward {self.name!r}: option {name!r} must be a number, got {value!r}")
        if self.check is not None:
            self.check(**merged)
        low, high = map(float, self.range_of(**merged))
        if not low < high:
            raise ConfigError(f"reward {self.name!r}: the worst reward ({low}) must be below the best ({high})")
        return BoundReward(self, MappingProxyType(merged), low, high, judge)


@dataclass(frozen=True)
class BoundReward:
    """A reward function with its options, the resulting range of the task reward, and the judge that it asks."""

    reward: Reward
    options: Mapping[str, Any]
    low: float
    high: float
    judge: str | None = None


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

    The function is called as ``fn(sample, **options)``. It may be a coroutine function, or return an awaitable only
    where it has to wait. Its keyword-only parameters are options that a recipe can set. A parameter named ``judge``
    receives the judge's client.

    Args:
        name: unique; prefix it with a namespace of your own, ``"acme_toxicity"``.
        reward_range: lowest and highest task reward, or a function of the options that returns them. Default: the
            options ``wrong`` and ``right``.
        blocking: run a plain function in a thread, because it waits or computes for long.
        check: called with all options before training starts; raises ``ConfigError`` if they cannot work.
        gold, wrong: write an answer that must score the maximum, and one that must not, for a given row. With them
            ``verl-air check`` verifies the data file.

    Raises:
        ConfigError: the name is taken by another function, or the signature cannot be used.
    """

    def decorator(function: F) -> F:
        defaults, required, wants_judge = _read_signature(name, function)
        range_of = _range_function(name, reward_range, {*defaults, *required})
        existing = _REGISTRY.get(name)
        if existing is not None and _origin(existing.call) != _origin(function):
            raise ConfigError(
                f"reward {name!r} is already registered by {_origin(existing.call)}; "
                f"{_origin(function)} needs another name"
            )
        _REGISTRY[name] = Reward(
            name, function, defaults, required, wants_judge, blocking, range_of, check, gold, wrong
        )
        return function

    return decorator


def get_reward(name: str) -> Reward:
    """Look up a name, including shipped functions and plugins.

    Raises:
        ConfigError: nothing of that name; the message lists what is registered.
    """
    _load_standard_modules()
    try:
        return _REGISTRY[name]
    except KeyError:
        raise ConfigError(
            f"no reward named {name!r}{closest(name, _REGISTRY)}; registered: {', '.join(reward_names())}. "
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


@cache
def _load_standard_modules() -> None:
    """Import the shipped functions and the installed plugins; a failing import is raised."""
    shipped = importlib.import_module(SHIPPED)
    for module in pkgutil.iter_modules(shipped.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{SHIPPED}.{module.name}")
    load_plugins()


def _read_signature(name: str, function: RewardCallable) -> tuple[Mapping[str, Any], frozenset[str], bool]:
    """The options with a default, those without, and whether the function asks a judge."""
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
    defaults = {key: value.default for key, value in parameters.items() if value.default is not empty}
    return MappingProxyType(defaults), frozenset(set(parameters) - set(defaults)), wants_judge


def _range_function(
    name: str, reward_range: Range | Callable[..., Range] | None, options: set[str]
) -> Callable[..., Range]:
    if callable(reward_range):
        return reward_range
    if reward_range is not None:
        return lambda **_: reward_range
    if not {"right", "wrong"} <= options:
        raise ConfigError(
            f"reward {name!r}: give reward_range=(lowest, highest), or let the function have the options "
            "`right` and `wrong`"
        )
    return lambda *, right, wrong, **_: (wrong, right)


def _origin(function: RewardCallable) -> str:
    """Names a function in messages."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
