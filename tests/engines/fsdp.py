"""verl's FSDP2 engine; for the device ``cpu`` it is what ``verl_air.cpu.engine`` registers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tests.engines.training import Gradients, Job


@dataclass(frozen=True)
class Fsdp2:
    strategy: str = "fsdp2"
    param_dtype: str = "fp32"
    """Of the weights in forward and backward; master weights and reductions are fp32."""

    def prepare(self) -> None:
        pass

    def configs(self, job: Job) -> tuple[Any, Any]:
        from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig

        engine = FSDPEngineConfig(
            strategy=self.strategy,
            model_dtype="fp32",
            mixed_precision={"param_dtype": self.param_dtype, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
            use_torch_compile=False,
            use_dynamic_bsz=job.max_tokens is not None,
            max_token_len_per_gpu=job.max_tokens,
            micro_batch_size_per_gpu=job.micro_batch,
        )
        optimizer = FSDPOptimizerConfig(
            lr=job.learning_rate, weight_decay=0.0, clip_grad=1.0, total_training_steps=max(job.steps, 1)
        )
        return engine, optimizer

    def gradients(self, engine: Any) -> Gradients:
        parameters = engine.module.named_parameters()
        return {name: _whole(parameter.grad) for name, parameter in parameters if parameter.requires_grad}

    def parameters(self, engine: Any) -> Gradients:
        return {name: _whole(parameter) for name, parameter in engine.module.named_parameters()}

    def place(self, engine: Any) -> dict[str, Any]:
        return {"dp": engine.get_data_parallel_rank()}


def _whole(value: Any) -> Tensor:
    return value.full_tensor().detach().cpu().clone()
