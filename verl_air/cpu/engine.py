"""verl's FSDP2 engines for the device ``cpu``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine, FSDPEngineWithLMHead, FSDPEngineWithValueHead

from verl_air.errors import ConfigError


@contextmanager
def _set(config: Any, name: str, value: Any) -> Iterator[None]:
    """Set a field of one of verl's frozen configs temporarily."""
    before = getattr(config, name)
    object.__setattr__(config, name, value)
    try:
        yield
    finally:
        object.__setattr__(config, name, before)


class _CpuEngine(FSDPEngine):
    """What differs on a CPU, for both heads."""

    engine_config: Any

    def __init__(self, model_config: Any, engine_config: Any, *args: Any, **kwargs: Any) -> None:
        if engine_config.strategy != "fsdp2":
            raise ConfigError(
                f"strategy={engine_config.strategy!r} cannot run on a CPU (FSDP1's sync_module_states needs a GPU). "
                "Set actor_rollout_ref.actor.strategy and actor_rollout_ref.ref.strategy to fsdp2."
            )
        super().__init__(model_config, engine_config, *args, **kwargs)

    def _build_fsdp_module(self, module: Any) -> Any:
        # A reference policy is forward_only, for which verl asks FSDP2 for CPUOffloadPolicy(pin_memory=True);
        # pinning needs an accelerator, and the weights are on the CPU anyway.
        with _set(self.engine_config, "forward_only", False):
            return super()._build_fsdp_module(module)


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CpuEngineWithLMHead(_CpuEngine, FSDPEngineWithLMHead):
    """Actor and reference policy."""


@EngineRegistry.register(model_type="value_model", backend=["fsdp", "fsdp2"], device="cpu")
class CpuEngineWithValueHead(_CpuEngine, FSDPEngineWithValueHead):
    """Critic, for base algorithms that have one."""
