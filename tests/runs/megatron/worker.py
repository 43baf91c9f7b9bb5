"""The ``external_lib`` of the Megatron runs: verl imports it wherever it builds a model config.

Also the agent loop and vLLM's server build one, so importing this module registers an engine and patches nothing. The
patches come when a worker builds the engine; by then verl has made the process group.
"""

from __future__ import annotations

from typing import Any

from verl.workers.engine import EngineRegistry
from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead


@EngineRegistry.register(model_type="language_model", backend="megatron", device="cpu")
class CpuMegatronEngine(MegatronEngineWithLMHead):
    """verl's own engine, in fp32, in a process where the CPU answers for CUDA."""

    def __init__(self, model_config: Any, engine_config: Any, *args: Any, **kwargs: Any) -> None:
        from tests.engines.megatron import shim
        from tests.runs.megatron import torch_adam

        shim.install(register_engine=False)
        torch_adam.make_resumable()
        object.__setattr__(engine_config, "dtype", "float32")  # verl allows bfloat16 and float16 only
        super().__init__(model_config, engine_config, *args, **kwargs)
