"""verl's Megatron engine under a parallel layout, on gloo with the shim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.engines.training import Gradients, Job

# Kernels of CUDA that megatron-core would fuse into.
WITHOUT_FUSION = {
    "masked_softmax_fusion": False,
    "gradient_accumulation_fusion": False,
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "apply_rope_fusion": False,
    "persist_layer_norm": False,
    "attention_backend": "unfused",
}


@dataclass(frozen=True)
class Megatron:
    """Sizes of tensor, pipeline, context and virtual pipeline parallelism; the rest of a world is data parallel.

    nvidia_bridge: names are translated by NVIDIA's megatron-bridge, not by mbridge.
    """

    tp: int = 1
    pp: int = 1
    cp: int = 1
    vpp: int | None = None
    sequence_parallel: bool = False
    nvidia_bridge: bool = False
    strategy: str = "megatron"

    def prepare(self) -> None:
        from tests.engines.megatron import nvidia_bridge, shim

        shim.install()
        if self.nvidia_bridge:
            nvidia_bridge.install()
        from megatron.core import parallel_state as mpu

        if mpu.is_initialized():  # by the case before, in this same process
            mpu.destroy_model_parallel()

    def configs(self, job: Job) -> tuple[Any, Any]:
        from verl.workers.config import McoreEngineConfig, McoreOptimizerConfig

        engine = McoreEngineConfig(
            tensor_model_parallel_size=self.tp,
            pipeline_model_parallel_size=self.pp,
            context_parallel_size=self.cp,
            virtual_pipeline_model_parallel_size=self.vpp,
            sequence_parallel=self.sequence_parallel,
            vanilla_mbridge=not self.nvidia_bridge,
            # The distributed optimizer leaves each rank a part of the gradients; without it each has all of its own.
            use_distributed_optimizer=False,
            use_dynamic_bsz=job.max_tokens is not None,
            max_token_len_per_gpu=job.max_tokens,
            micro_batch_size_per_gpu=job.micro_batch,
            override_transformer_config={"sequence_parallel": self.sequence_parallel, **WITHOUT_FUSION},
        )
        object.__setattr__(engine, "dtype", "float32")  # verl allows bfloat16 and float16 only
        return engine, McoreOptimizerConfig(lr=job.learning_rate, weight_decay=0.0, clip_grad=1.0, lr_decay_steps=10)

    def gradients(self, engine: Any) -> Gradients:
        """Gathered and named by the bridge, which exports weights: gradients take their place for a moment."""
        parameters = [parameter for chunk in engine.module for parameter in chunk.parameters()]
        weights = [parameter.data for parameter in parameters]
        for parameter in parameters:
            parameter.data = parameter.main_grad.clone()
        try:
            return self.parameters(engine)
        finally:
            for parameter, weight in zip(parameters, weights, strict=True):
                parameter.data = weight

    def parameters(self, engine: Any) -> Gradients:
        export = engine.bridge.export_hf_weights if self.nvidia_bridge else engine.bridge.export_weights
        return {name: value.detach().clone() for name, value in export(engine.module)}

    def place(self, engine: Any) -> dict[str, Any]:
        from megatron.core import parallel_state as mpu

        return {
            "tp": mpu.get_tensor_model_parallel_rank(),
            "pp": mpu.get_pipeline_model_parallel_rank(),
            "cp": mpu.get_context_parallel_rank(),
            "dp": mpu.get_data_parallel_rank(),
            "chunks": len(engine.module),  # virtual pipeline stages on this rank
        }
