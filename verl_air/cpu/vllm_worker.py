"""The vLLM worker extension of a CPU rollout.

A recipe names it as vLLM's ``worker_extension_cls`` (recipes/hardware/cpu.yaml).
"""

from __future__ import annotations

from typing import Any

import torch
import vllm.model_executor.layers.utils as layer_utils
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


def keep_plain_weights() -> None:
    """Make vLLM's CPU linear layers use ``F.linear`` on the weight as it is.

    vLLM packs each weight and puts an empty one in its place, after which new weights from the trainer cannot be
    loaded.
    """

    def plain_linear(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layer_utils.dispatch_cpu_unquantized_gemm = plain_linear


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """verl's own extension, in a worker whose weights stay loadable."""

    def __new__(cls, **kwargs: Any) -> CpuWorkerExtension:
        """Runs before any model is built: vLLM mixes this class into its worker."""
        keep_plain_weights()
        return super().__new__(cls, **kwargs)
