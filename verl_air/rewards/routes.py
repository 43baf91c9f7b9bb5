"""Which reward function scores a row: ``<domain>/<role>`` or ``<domain>/<role>/<split>``, each part may be ``*``.

The pattern with the most literal parts wins; among equals the one whose leftmost part is literal. So
``playground/open/train`` beats ``playground/open``, which beats ``*/open``, which beats ``*/*``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verl_air.errors import ConfigError, RewardError
from verl_air.rewards.registry import get_reward
from verl_air.rewards.reward import BoundReward

_ROLES = ("anchor", "open", "*")


class Routes:
    """The compiled routes of a recipe; every name and option is checked here.

    Raises:
        ConfigError: a malformed pattern, an unknown name or an unknown option.
    """

    def __init__(self, routes: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        if not isinstance(routes, Mapping) or not routes:
            raise ConfigError("routes is empty: set reward_kwargs.routes, e.g. {'safety/anchor': multiple_choice}")
        shared = dict(options or {})
        for name in shared:
            get_reward(name)
        self._patterns = [(_parse(key), _bind(key, value, shared)) for key, value in routes.items()]
        self._patterns.sort(key=lambda item: _specificity(item[0]), reverse=True)
        self._found: dict[tuple[str, str, str], BoundReward] = {}

    def find(self, data_source: str, extra_info: Mapping[str, Any]) -> BoundReward:
        """The function for a row.

        Raises:
            RewardError: no route fits.
        """
        domain, _, split = data_source.partition("/")
        place = (
            str(extra_info.get("domain") or domain),
            str(extra_info.get("role") or ""),
            str(extra_info.get("split") or split),
        )
        bound = self._found.get(place)
        if bound is None:
            bound = self._found[place] = self._search(place, data_source)
        return bound

    def _search(self, place: tuple[str, str, str], data_source: str) -> BoundReward:
        for pattern, bound in self._patterns:
            if all(part in ("*", value) for part, value in zip(pattern, place, strict=True)):
                return bound
        known = ", ".join(sorted("/".join(pattern).removesuffix("/*") for pattern, _ in self._patterns))
        raise RewardError(
            f"no route for data_source {data_source!r} (domain {place[0]!r}, role {place[1]!r}, split {place[2]!r}); "
            f"known routes: {known}. Add one to reward_kwargs.routes."
        )


def _parse(key: str) -> tuple[str, str, str]:
    parts = str(key).split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ConfigError(f"routes: {key!r} is not <domain>/<role> or <domain>/<role>/<split>")
    if parts[1] not in _ROLES:
        raise ConfigError(f"routes: {key!r}: the role must be anchor, open or *, not {parts[1]!r}")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else "*"


def _bind(key: str, value: Any, shared: Mapping[str, Mapping[str, Any]]) -> BoundReward:
    own = {"name": value} if isinstance(value, str) else value
    if not isinstance(own, Mapping) or not isinstance(own.get("name"), str):
        raise ConfigError(f"routes: {key!r} must lead to a name or to {{name: ..., option: ...}}, got {value!r}")
    options = {option: setting for option, setting in own.items() if option != "name"}
    try:
        return get_reward(own["name"]).bind({**(shared.get(own["name"]) or {}), **options})
    except ConfigError as error:
        raise ConfigError(f"routes: {key!r}: {error}") from error


def _specificity(pattern: tuple[str, str, str]) -> tuple[int, tuple[bool, ...]]:
    literal = tuple(part != "*" for part in pattern)
    return sum(literal), literal
