"""The names that routes may use, and the functions behind them.

Three kinds of module register here, each imported once: the shipped ones (`reward_fns`), installed plugins (entry-point
group ``verl_air.plugins``) and the modules that a recipe names (``reward_kwargs.modules``).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from functools import cache
from typing import TypeVar

from verl_air.errors import ConfigError
from verl_air.extensions import load_plugins
from verl_air.rewards.reward import AnswerWriter, Range, Reward, RewardCallable, closest, describe, origin

SHIPPED = "reward_fns"

F = TypeVar("F", bound=RewardCallable)


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
        entry = describe(name, function, reward_range, blocking, check, gold, wrong)
        existing = _REGISTRY.get(name)
        if existing is not None and origin(existing.call) != origin(function):
            raise ConfigError(
                f"reward {name!r} is already registered by {origin(existing.call)}; "
                f"{origin(function)} needs another name"
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
    """Import the shipped functions and the installed plugins; a failure is raised, never passed over."""
    shipped = importlib.import_module(SHIPPED)
    for module in pkgutil.iter_modules(shipped.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{SHIPPED}.{module.name}")
    load_plugins()
