"""Which settings of a recipe are shown, and how a recipe is shown whole without its secrets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import yaml

from verl_air.config import AirConfig

SHOWN = {
    "method": "air.regularizer",
    "coef": "air.coef",
    "estimator": "air.estimator",
    "auxiliary reward": "air.aux_reward",
    "reward scale": "air.reward_scale",
    "anchors + open an intent": "air.anchors_per_intent+air.open_per_intent",
    "advantage": "algorithm.adv_estimator",
    "policy loss": "actor_rollout_ref.actor.policy_loss.loss_mode",
    "learning rate": "actor_rollout_ref.actor.optim.lr",
    "prompts a step": "data.train_batch_size",
    "completions a prompt": "actor_rollout_ref.rollout.n",
    "model": "actor_rollout_ref.model.path",
    "judge": "reward.reward_model.model_path",
    "trainer": "trainer.v1.trainer_mode",
    "data seed": "data.seed",
}
"""Title -> dotted key, or several joined by ``+``."""

_SECRET = re.compile(
    r"(api_?key|secret|passw(or)?d|credential|access_?key|auth(orization)?$|(^|_)token$)", re.IGNORECASE
)
HIDDEN = "(hidden)"


def shown_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of :data:`SHOWN` that the recipe has; ``air`` with its defaults."""
    if isinstance(air := config.get("air"), Mapping):
        defaults = {field.name: field.default for field in dataclasses.fields(AirConfig)}
        config = {**config, "air": {**defaults, **air}}
    found = {}
    for title, keys in SHOWN.items():
        values = [_select(config, key) for key in keys.split("+")]
        if all(value is not None for value in values):
            found[title] = " + ".join(map(str, values))
    return found


def planned_steps(config: Mapping[str, Any]) -> int | None:
    """How long the run was to be, if the recipe says so."""
    steps = _select(config, "trainer.total_training_steps")
    return steps if isinstance(steps, int) else None


def whole_recipe(config: Mapping[str, Any]) -> str:
    """As YAML; what looks like a secret is hidden, since reports are passed on."""
    return yaml.safe_dump(_hide(config), sort_keys=False, allow_unicode=True) if config else ""


def versions(record: Mapping[str, Any]) -> dict[str, str]:
    """Versions of packages and the commit."""
    found = {"python": str(record["python"])} if record.get("python") else {}
    packages = record.get("versions")
    if isinstance(packages, Mapping):
        found.update({str(name): str(value) for name, value in packages.items() if value})
    git = record.get("git")
    if isinstance(git, Mapping) and git.get("commit"):
        found["commit"] = f"{git['commit']}{' with changes' if git.get('modified') else ''}"
    return found


def _select(config: Any, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(config, Mapping):
            return None
        config = config.get(name)
    return config


def _hide(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if inner and isinstance(inner, str) and _SECRET.search(str(name)) else _hide(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_hide(inner) for inner in value]
    return value
