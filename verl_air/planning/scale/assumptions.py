"""What the model takes for granted. Each number has a unit and says where it is from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from verl_air.errors import ConfigError

MODES = ("sync", "colocate_async", "separate_async")
POLICIES = ("drop", "no_air", "refill")
_ABOVE_0 = ("length_median", "length_max", "peak_tokens_per_s", "sequence_tokens_per_s", "train_tokens_per_s",
            "judge_per_s", "judge_gpus_per_64")  # fmt: skip
_COUNTS = ("anchors", "open", "completions", "mini_batches", "staleness")
_NOT_BELOW_0 = ("length_sigma", "prompt_tokens", "judge_latency_s", "train_fixed_s", "sync_base_s",
                "sync_per_doubling_s", "poll_s", "driver_us", "warmup")  # fmt: skip
_SHARES = ("same_intent", "same_prompt", "failure", "rollout_share")


def _is(default: Any, unit: str, source: str) -> Any:
    return field(default=default, metadata={"unit": unit, "source": source})


@dataclass(frozen=True)
class Assumptions:
    """One setting of the model; unit and source of every field are in its metadata."""

    anchors: int = _is(1, "prompts", "m; 14 B recipes")
    open: int = _is(3, "prompts", "n; 14 B recipes")
    completions: int = _is(3, "a prompt", "K; 14 B recipes")
    length_median: float = _is(2000.0, "tokens", "assumed")
    length_sigma: float = _is(0.6, "of log length", "assumed")
    length_max: int = _is(8192, "tokens", "recipe of 8x8 GPUs")
    same_intent: float = _is(0.3, "share of variance of log length", "assumed")
    same_prompt: float = _is(0.2, "share of variance of log length", "assumed")
    prompt_tokens: float = _is(300.0, "tokens", "assumed")
    sequence_tokens_per_s: float = _is(80.0, "tokens/s of a lone sequence", "assumed")
    peak_tokens_per_s: float = _is(2500.0, "tokens/s a GPU, many sequences", "assumed")
    rollout_share: float = _is(0.5, "of GPUs, separate_async", "assumed")
    judge_per_s: float = _is(6.0, "requests/s a judge GPU", "assumed")
    judge_gpus_per_64: float = _is(16.0, "judge GPUs beside 64", "assumed")
    judge_latency_s: float = _is(2.0, "s", "assumed")
    train_tokens_per_s: float = _is(3000.0, "tokens/s a GPU, all passes", "assumed")
    train_fixed_s: float = _is(5.0, "s a step", "assumed")
    sync_base_s: float = _is(5.0, "s a weight sync", "assumed")
    sync_per_doubling_s: float = _is(0.5, "s a doubling of GPUs", "assumed")
    failure: float = _is(0.001, "of rollouts", "assumed")
    incomplete_groups: str = _is("drop", "policy, sync", "default of air:")
    warmup: float = _is(1.0, "batches ahead, async", "verl's default (num_warmup_batches)")
    mini_batches: int = _is(4, "a step, separate_async", "verl's default (parameter_sync_step)")
    staleness: int = _is(8, "steps, async", "verl's default (max_off_policy_threshold)")
    poll_s: float = _is(0.1, "s between looks", "default of air.poll_seconds")
    driver_us: float = _is(1.46, "us a trajectory", "benchmarks/baselines/driver.json: step + replay buffer + sampler")

    def __post_init__(self) -> None:
        """Raises ConfigError: a number out of its range; names it."""
        for name in _ABOVE_0 + _COUNTS + _NOT_BELOW_0 + _SHARES:
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ConfigError(f"{name}={value:g}: must be a number not below 0")
            if name in _ABOVE_0 and value == 0:
                raise ConfigError(f"{name}=0: must be above 0")
            if name in _COUNTS and (value < 1 or value != int(value)):
                raise ConfigError(f"{name}={value:g}: must be a whole number from 1")
            if name in _SHARES and value >= 1:
                raise ConfigError(f"{name}={value:g}: must be below 1")
        if self.same_intent + self.same_prompt > 1:
            raise ConfigError("same_intent + same_prompt: shares of one variance, at most 1 together")
        if self.rollout_share == 0:
            raise ConfigError("rollout_share=0: separate_async needs rollout GPUs")
        if self.incomplete_groups not in POLICIES:
            raise ConfigError(f"incomplete_groups={self.incomplete_groups}: one of {', '.join(POLICIES)}")

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
        return [
            (f.name, f"{v:g}" if isinstance(v := getattr(self, f.name), float) else str(v),
             f.metadata["unit"], f.metadata["source"])
            for f in fields(self)
        ]  # fmt: skip
