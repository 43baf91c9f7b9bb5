"""A recipe's ``reward_kwargs``, checked and compiled once: which reward scores a row, the format rule, the judges.

A route is ``<domain>/<role>`` or ``<domain>/<role>/<split>``; each part may be ``*``, and a bare ``*`` matches every
row. The pattern with the most literal parts wins; among equals, the one whose leftmost part is literal. So
``playground/open/train`` beats ``playground/open``, which beats ``playground/*``, ``*/open`` and ``*``, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from verl_air.errors import ConfigError, RewardError
from verl_air.rewards.format import FormatRule
from verl_air.rewards.judge.settings import SERVED, JudgeSettings, read_judges
from verl_air.rewards.registry import BoundReward, get_reward, import_modules, reward_names
from verl_air.settings import closest

Pattern = tuple[str, str, str]


class ScoringPlan:
    """The compiled ``reward_kwargs``; every name, option and key is checked here.

    Args:
        routes: pattern -> name, or ``{name: ..., option: ...}``; the option ``judge`` names one of several judges.
        modules: modules to import, so that they register third-party functions.
        options: name -> options, for every route to that name; a route's own options take precedence.
        format: see :class:`~verl_air.rewards.FormatRule`.
        judges: name -> :class:`~verl_air.rewards.JudgeSettings`; ``verl`` is the reward model that verl serves.
        judge: short for ``judges: {verl: ...}``.

    Raises:
        ConfigError: a malformed pattern, an unknown name, option or key.
    """

    def __init__(
        self,
        routes: Mapping[str, Any] | None = None,
        modules: Sequence[str] | None = (),
        options: Mapping[str, Mapping[str, Any]] | None = None,
        format: Mapping[str, Any] | None = None,
        judge: Mapping[str, Any] | None = None,
        judges: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise ConfigError(
                f"reward_kwargs: unknown key(s) {', '.join(sorted(unknown))}; "
                "known: routes, modules, options, format, judge, judges"
            )
        routes, shared = _plain(routes), _plain(options) or {}
        if not isinstance(routes, Mapping) or not routes:
            state = "not set" if routes is None else "empty"
            raise ConfigError(f"reward_kwargs.routes is {state}; e.g. {{safety/anchor: multiple_choice}}")
        import_modules(_plain(modules) or ())
        for name in shared:
            get_reward(name)
        self.format = FormatRule.from_mapping(_plain(format) or {})
        self.judges = read_judges(_plain(judge), _plain(judges))
        self._known = ", ".join(sorted(map(str, routes)))
        self.rewards: dict[Pattern, BoundReward] = {}
        for key, value in routes.items():
            pattern = _parse(str(key))
            if pattern in self.rewards:
                raise ConfigError(f"routes: {key!r} matches the same rows as another route; remove one of them")
            self.rewards[pattern] = self._with_judge(key, _bind(key, value, shared))
        self._patterns = sorted(self.rewards, key=_specificity, reverse=True)
        self._found: dict[Pattern, BoundReward] = {}

    def reward_for(self, data_source: str, extra_info: Mapping[str, Any]) -> BoundReward:
        """The function for a row.

        Raises:
            RewardError: no route matches.
        """
        domain, _, split = data_source.partition("/")
        place = (
            str(extra_info.get("domain") or domain),
            str(extra_info.get("role") or ""),
            str(extra_info.get("split") or split),
        )
        if place not in self._found:
            matching = (p for p in self._patterns if all(a in ("*", b) for a, b in zip(p, place, strict=True)))
            if (pattern := next(matching, None)) is None:
                raise RewardError(
                    f"no route for data_source {data_source!r} (domain {place[0]!r}, role {place[1]!r}, "
                    f"split {place[2]!r}); known routes: {self._known}. Add one to reward_kwargs.routes."
                )
            self._found[place] = self.rewards[pattern]
        return self._found[place]

    def judge_of(self, bound: BoundReward) -> JudgeSettings:
        """The judge that a reward asks; its limit of time holds for a reward without one, too."""
        return self.judges[bound.judge or next(iter(self.judges))]

    def _with_judge(self, key: str, bound: BoundReward) -> BoundReward:
        """The name of the judge that the route asks, if its reward asks one."""
        if not bound.reward.wants_judge:
            return bound
        name = bound.judge
        if name is None:
            if len(self.judges) > 1:
                raise ConfigError(f"routes: {key!r} must name one of several judges: judge: {' | '.join(self.judges)}")
            name = next(iter(self.judges))
        elif name == SERVED:
            self.judges.setdefault(SERVED, JudgeSettings())
        elif name not in self.judges:
            known = ", ".join(dict.fromkeys([*self.judges, SERVED]))
            raise ConfigError(f"routes: {key!r}: no judge {name!r}{closest(name, self.judges)}; known: {known}")
        return replace(bound, judge=name)


_PLANS: dict[tuple[tuple[str, int], ...], tuple[Mapping[str, Any], ScoringPlan]] = {}


def plan_for(settings: Mapping[str, Any]) -> ScoringPlan:
    """Compile ``reward_kwargs`` once: verl passes the same objects with every call.

    Their identity is the key. They are kept with the plan, so that no identity is reused while it is a key.
    """
    key = tuple((name, id(value)) for name, value in settings.items())
    if key not in _PLANS:
        if len(_PLANS) >= 32:
            _PLANS.clear()
        _PLANS[key] = settings, ScoringPlan(**settings)
    return _PLANS[key][1]


def _parse(key: str) -> Pattern:
    parts = ["*", "*"] if key == "*" else key.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ConfigError(f"routes: {key!r} is not <domain>/<role>, <domain>/<role>/<split> or *")
    if parts[1] not in ("anchor", "open", "*"):
        raise ConfigError(f"routes: {key!r}: the role must be anchor, open or *, not {parts[1]!r}")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else "*"


def _specificity(pattern: Pattern) -> tuple[int, tuple[bool, ...]]:
    literal = tuple(part != "*" for part in pattern)
    return sum(literal), literal


def _bind(key: str, value: Any, shared: Mapping[str, Mapping[str, Any]]) -> BoundReward:
    route = {"name": value} if isinstance(value, str) else value
    if not isinstance(route, Mapping) or not isinstance(route.get("name"), str):
        raise ConfigError(f"routes: {key!r} must lead to a name or to {{name: ..., option: ...}}, got {value!r}")
    name, own = route["name"], {option: setting for option, setting in route.items() if option != "name"}
    try:
        reward = get_reward(name)
        _refuse_inherited(name, own, [*reward.option_names, *(["judge"] if reward.wants_judge else [])])
        return reward.bind({**(shared.get(name) or {}), **own})
    except ConfigError as error:
        raise ConfigError(f"routes: {key!r}: {error}") from error


def _refuse_inherited(name: str, own: Mapping[str, Any], known: Sequence[str]) -> None:
    """Explain an option of another reward: Hydra merges a route's mapping with the one that it replaces.

    A route that is a plain name replaces the mapping as a whole and inherits nothing.
    """
    for option in sorted(set(own) - set(known)):
        if owners := [other for other in reward_names() if option in get_reward(other).option_names]:
            raise ConfigError(
                f"reward {name!r}: unknown option {option!r}; known: {', '.join(known) or 'none'}. It is an option of "
                f"{', '.join(owners)}: was it inherited from the route that this one replaces? Write the route as the "
                f"plain name {name}, and its options under options.{name}"
            )


def _plain(value: Any) -> Any:
    """Plain containers for OmegaConf's, which verl passes."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
