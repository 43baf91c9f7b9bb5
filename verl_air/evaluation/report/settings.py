"""Which settings of a recipe are shown, and how a recipe is shown whole without its secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce
from typing import Any

import yaml

from verl_air.config import AirConfig

SHOWN = {
    "method": "air.regularizer",
    "coef": "air.coef",
    "estimator": "air.estimator",
    "auxiliary reward": "air.aux_reward",
    "reward scale": "air.reward_scale",
    "anchors + open per intent": "air.anchors_per_intent+air.open_per_intent",
    "advantage": "algorithm.adv_estimator",
    "policy loss": "actor_rollout_ref.actor.policy_loss.loss_mode",
    "learning rate": "actor_rollout_ref.actor.optim.lr",
    "prompts per step": "data.train_batch_size",
    "completions per prompt": "actor_rollout_ref.rollout.n",
    "response style": "reward.custom_reward_function.reward_kwargs.format.style",
    "model": "actor_rollout_ref.model.path",
    "judge": "reward.reward_model.model_path",
    "trainer": "trainer.v1.trainer_mode",
    "data seed": "data.seed",
}
"""Title -> dotted key, or several joined by ``+``."""

_SECRET = re.compile(
    r"(api_?key|secret|passw(or)?d|credential|access_?key|auth(orization)?$|(^|_)token$)", re.IGNORECASE
)


def select(config: Any, key: str) -> Any:
    """The value of a dotted key, or None."""
    return reduce(lambda at, name: at.get(name) if isinstance(at, Mapping) else None, key.split("."), config)


def shown_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of :data:`SHOWN` that the recipe has; ``air`` with its defaults."""
    if isinstance(air := config.get("air"), Mapping):
        defaults = {name: field.default for name, field in AirConfig.model_fields.items()}
        config = {**config, "air": {**defaults, **air}}
    found = {title: [select(config, key) for key in keys.split("+")] for title, keys in SHOWN.items()}
    return {title: " + ".join(map(str, values)) for title, values in found.items() if None not in values}


def whole_recipe(config: Mapping[str, Any]) -> str:
    """As YAML; what looks like a secret is hidden, since reports are passed on."""
    return yaml.safe_dump(_hide(config), sort_keys=False, allow_unicode=True) if config else ""


def versions(record: Mapping[str, Any]) -> dict[str, str]:
    """Versions of packages and the commit."""
    found = {"python": record.get("python"), **(select(record, "versions") or {})}
    if commit := select(record, "git.commit"):
        found["commit"] = f"{commit}{' with changes' if select(record, 'git.modified') else ''}"
    return {str(name): str(value) for name, value in found.items() if value}


def _hide(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: "(hidden)" if inner and isinstance(inner, str) and _SECRET.search(str(name)) else _hide(inner)
            for name, inner in value.items()
        }
    return [_hide(inner) for inner in value] if isinstance(value, list) else value
