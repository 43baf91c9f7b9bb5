"""``AirConfig``: the recipe's ``air:`` key, frozen, validated when it is read. Imports no torch and no verl."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from verl_air.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AirConfig:
    """Options of Anchor Invariance Regularization. The defaults are the paper's (docs/paper_index.md cites each).

    The objective:
        regularizer: ``air``, ``vrex`` (the symmetric baseline), ``none``, or a name registered by a third party.
        coef: weight of the auxiliary loss, lambda in the paper. 0 is exactly plain GRPO or GSPO.
        estimator: ``paper``, or ``loo`` (leave-one-out: unbiased at no cost; recommended, needs ``rollout.n >= 2``).
        normalize_by: average the auxiliary loss over ``all`` valid trajectories, or over the ``open`` ones only.
        importance: ``none``, or ``ratio``: reweight by the clipped ratio pi / pi_old, for updates that are off-policy
            (several mini-batches a step, or asynchronous rollouts).
        importance_clip: upper clip of that ratio.
        aux_reward: the reward in gap and weight: ``total`` (task + format, as in the paper), or ``task`` alone so that
            a wrong but well-formatted answer is worth less than zero.
        gap: ``signed``, or ``positive`` to leave open variants alone that are paid more than their anchor.
        gap_shrinkage: 0 is off; see ``verl_air.objective.regularizers.GapOptions``.
        reward_scale: ``raw``, or ``unit``: map every reward function's range to [-1, 1] first, so that anchors and open
            variants compare like with like.

    Meta-groups:
        anchors_per_intent, open_per_intent: prompts of an intent that are sampled together (m and n in the paper).
        incomplete_groups: what happens to a meta-group in which a rollout failed or was filtered: ``drop`` (masked
            out of the step), ``no_air`` (trained without the auxiliary term) or ``refill`` (replaced by a fresh one).

    Judge failures:
        max_abstain_rate: the run stops when the share of open rows on which the judge abstained, over the last
            ``abstain_window`` steps, is above this.
        abstain_window: steps.

    Running:
        poll_seconds: how often the trainer looks for finished rollouts. verl's own 2.0 dominates short steps.
    """

    regularizer: str = "air"
    coef: float = 8e-4
    estimator: Literal["paper", "loo"] = "paper"
    normalize_by: Literal["all", "open"] = "all"
    importance: Literal["none", "ratio"] = "none"
    importance_clip: float = 2.0
    aux_reward: Literal["total", "task"] = "total"
    gap: Literal["signed", "positive"] = "signed"
    gap_shrinkage: float = 0.0
    reward_scale: Literal["raw", "unit"] = "raw"
    anchors_per_intent: int = 1
    open_per_intent: int = 3
    incomplete_groups: Literal["drop", "no_air", "refill"] = "drop"
    max_abstain_rate: float = 0.2
    abstain_window: int = 20
    poll_seconds: float = 0.1

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), hint)
        _require(self.coef >= 0, "coef", self.coef, "at least 0")
        _require(self.importance_clip >= 1, "importance_clip", self.importance_clip, "at least 1")
        _require(self.gap_shrinkage >= 0, "gap_shrinkage", self.gap_shrinkage, "at least 0")
        _require(self.anchors_per_intent >= 1, "anchors_per_intent", self.anchors_per_intent, "at least 1")
        _require(self.open_per_intent >= 1, "open_per_intent", self.open_per_intent, "at least 1")
        _require(0 <= self.max_abstain_rate <= 1, "max_abstain_rate", self.max_abstain_rate, "between 0 and 1")
        _require(self.abstain_window >= 1, "abstain_window", self.abstain_window, "at least 1")
        _require(self.poll_seconds > 0, "poll_seconds", self.poll_seconds, "above 0")

    @property
    def group_size(self) -> int:
        """Prompts in a meta-group, |S_z|."""
        return self.anchors_per_intent + self.open_per_intent

    @property
    def active(self) -> bool:
        """Whether the auxiliary loss does anything at all."""
        return self.coef > 0 and self.regularizer != "none"

    @classmethod
    def from_mapping(cls, values: Any) -> AirConfig:
        """Read the recipe's ``air:`` key.

        Raises:
            ConfigError: it is no mapping, a key is unknown, or a value cannot be used; the message names the key.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"air: expected keys and values, got {values!r}")
        known = [field.name for field in dataclasses.fields(cls)]
        given = {str(key): value for key, value in values.items() if key != "_target_"}
        for key in given:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean air.{close[0]}?" if close else ""
                raise ConfigError(f"air.{key}: unknown key.{hint} Known: {', '.join(known)}")
        return cls(**{key: _as_number(key, value) for key, value in given.items()})


def _as_number(key: str, value: Any) -> Any:
    """YAML 1.1 reads ``8e-4`` as a string; accept it where a number is meant."""
    if isinstance(value, str) and get_type_hints(AirConfig).get(key) is float:
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _check_type(name: str, value: Any, hint: Any) -> None:
    choices = get_args(hint)
    if choices:
        if value not in choices:
            raise ConfigError(f"air.{name}: {value!r} is not one of {', '.join(map(str, choices))}")
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"air.{name}: {value!r} is not a finite number")
    elif hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"air.{name}: {value!r} is not a whole number")
    elif not isinstance(value, hint):
        raise ConfigError(f"air.{name}: {value!r} is not a {hint.__name__}")


def _require(condition: bool, name: str, value: Any, what: str) -> None:
    if not condition:
        raise ConfigError(f"air.{name}: {value!r} must be {what}")
