"""What the model takes for granted. Each number has a unit and names its source."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from verl_air.errors import ConfigError
from verl_air.settings import Settings


def _is(default: Any, unit: str, source: str, **bounds: Any) -> Any:
    return Field(default, json_schema_extra={"unit": unit, "source": source}, **bounds)


def _positive(default: float, unit: str, source: str) -> Any:
    return _is(default, unit, source, gt=0)


def _not_negative(default: float, unit: str, source: str) -> Any:
    return _is(default, unit, source, ge=0)


def _count(default: int, unit: str, source: str) -> Any:
    return _is(default, unit, source, ge=1)


def _share(default: float, unit: str, source: str) -> Any:
    return _is(default, unit, source, ge=0, lt=1)


class Assumptions(Settings):
    """One setting of the model.

    Raises:
        ConfigError: a number out of its range.
    """

    prefix: ClassVar[str] = "assumptions"

    anchors: int = _count(1, "prompts", "m; 14 B recipes")
    open: int = _count(3, "prompts", "n; 14 B recipes")
    completions: int = _count(3, "per prompt", "K; 14 B recipes")
    length_median: float = _positive(2000.0, "tokens", "assumed")
    length_sigma: float = _not_negative(0.6, "of log length", "assumed")
    length_max: int = _count(8192, "tokens", "recipe of 8x8 GPUs")
    same_intent: float = _share(0.3, "share of variance of log length", "assumed")
    same_prompt: float = _share(0.2, "share of variance of log length", "assumed")
    prompt_tokens: float = _not_negative(300.0, "tokens", "assumed")
    sequence_tokens_per_s: float = _positive(80.0, "tokens/s of a single sequence", "assumed")
    peak_tokens_per_s: float = _positive(2500.0, "tokens/s per GPU, many sequences", "assumed")
    rollout_share: float = _is(0.5, "of GPUs, separate_async", "assumed", gt=0, lt=1)
    judge_per_s: float = _positive(6.0, "requests/s per judge GPU", "assumed")
    judge_gpus_per_64: float = _positive(16.0, "judge GPUs per 64 GPUs", "assumed")
    judge_latency_s: float = _not_negative(2.0, "s", "assumed")
    train_tokens_per_s: float = _positive(3000.0, "tokens/s per GPU, all passes", "assumed")
    train_fixed_s: float = _not_negative(5.0, "s per step", "assumed")
    sync_base_s: float = _not_negative(5.0, "s per weight sync", "assumed")
    sync_per_doubling_s: float = _not_negative(0.5, "s per doubling of GPUs", "assumed")
    failure: float = _share(0.001, "of rollouts", "assumed")
    incomplete_groups: Literal["drop", "no_air", "refill"] = _is("drop", "policy, sync", "default of air:")
    warmup: float = _not_negative(1.0, "batches ahead, async", "verl's default (num_warmup_batches)")
    mini_batches: int = _count(4, "per step, separate_async", "verl's default (parameter_sync_step)")
    staleness: int = _count(8, "steps, async", "verl's default (max_off_policy_threshold)")
    poll_s: float = _not_negative(0.1, "s between polls", "POLL_MIN_S of verl_air/training/replay_buffer.py")
    driver_us: float = _not_negative(
        1.46, "us per trajectory", "benchmarks/baselines/driver.json: step + replay buffer + sampler"
    )

    @model_validator(mode="after")
    def _one_variance(self) -> Assumptions:
        if self.same_intent + self.same_prompt > 1:
            raise ConfigError("same_intent + same_prompt: shares of one variance, at most 1 together")
        return self

    def changed(self, **values: Any) -> Assumptions:
        """The same with other values.

        Raises:
            ConfigError: see the class.
        """
        return Assumptions(**{**self.model_dump(), **values})

    @property
    def group_size(self) -> int:
        """Prompts of a meta-group."""
        return self.anchors + self.open

    @property
    def whole_group_chance(self) -> float:
        """Chance that no rollout of a meta-group fails."""
        return float((1 - self.failure) ** (self.group_size * self.completions))

    def table(self) -> list[tuple[str, str, str, str]]:
        """(name, value, unit, source) of every assumption."""
        rows = []
        for name, field in type(self).model_fields.items():
            value, about = getattr(self, name), field.json_schema_extra
            assert isinstance(about, dict)
            text = f"{value:g}" if isinstance(value, float) else str(value)
            rows.append((name, text, str(about["unit"]), str(about["source"])))
        return rows
