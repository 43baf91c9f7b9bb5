"""A weight sync with a fault, for the negative control: one tensor is sent once and never again."""

from __future__ import annotations

from typing import Any

from verl_air.cpu.vllm_worker import CpuWorkerExtension

STALE = "lm_head.weight"


class StaleWorkerExtension(CpuWorkerExtension):
    """vLLM's worker, which from the second sync on leaves out ``STALE``."""

    _syncs = 0

    def update_weights_from_ipc(self, *args: Any, **kwargs: Any) -> None:
        self._syncs += 1
        super().update_weights_from_ipc(*args, **kwargs)

    def _update_weights(self, weights: list[Any], *args: Any, **kwargs: Any) -> None:
        if self._syncs > 1:
            weights = [(name, tensor) for name, tensor in weights if name != STALE]
        super()._update_weights(weights, *args, **kwargs)
