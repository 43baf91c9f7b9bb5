"""A recipe's ``reward_kwargs``, checked and compiled once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards.format import FormatRule
from verl_air.rewards.judge import JudgeSettings
from verl_air.rewards.registry import import_modules
from verl_air.rewards.routes import Routes

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


_PLANS: dict[tuple[int, ...], tuple[tuple[Any, ...], Plan]] = {}


def plan_for(*settings: Any) -> Plan:
    """Compile the settings once: verl passes the same objects with every call, so their identity is the key.

    The objects are kept beside the plan, so an identity is never reused while it is a key.

    Args:
        settings: those of :class:`Plan`, in its order.

    Raises:
        ConfigError: the recipe cannot work.
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
