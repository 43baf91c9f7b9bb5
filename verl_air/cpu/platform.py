"""``PlatformCPU``: verl's hardware interface (verl.plugin.platform) for a machine without a GPU.

verl asks Ray for GPUs by name, so a CPU run simulates some: ``ray_kwargs.ray_init.num_gpus``.
"""

from __future__ import annotations

import os
import resource
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry
from wrapt import wrap_function_wrapper

from verl_air.cpu.environment import VLLM_DEFAULTS, is_chosen


def _nothing(*_: Any, **__: Any) -> None:
    """There is one device, its work is done when a call returns, and it caches, profiles and configures nothing."""


class _CpuDevice(str):
    """What ``current_device()`` returns.

    verl uses it in two ways: ``tensor.to(device)``, which must mean "cpu", and ``f"{name}:{device}"``
    (utils/fsdp_utils.py), which must give "cpu:0".
    """

    __slots__ = ()

    def __new__(cls) -> _CpuDevice:
        return super().__new__(cls, "cpu")

    def __format__(self, spec: str) -> str:
        return "0"

    def __int__(self) -> int:
        return 0

    __index__ = __int__


def _device_module() -> types.ModuleType:
    """``torch.cpu`` plus the functions of ``torch.cuda`` that verl calls whatever the device."""

    def memory_allocated(device: Any = None) -> int:
        return int(psutil.Process().memory_info().rss)

    def max_memory_allocated(device: Any = None) -> int:
        # The operating system keeps the peak; it cannot be reset.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return int(memory.available), int(memory.total)

    resets = ("reset_peak_memory_stats", "reset_accumulated_memory_stats")
    nothing = ("set_device", "synchronize", "empty_cache", "ipc_collect", *resets)
    module = types.ModuleType("verl_air.cpu.device_module")
    vars(module).update(
        {"__getattr__": partial(getattr, torch.cpu)},
        **dict.fromkeys(nothing, _nothing),
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=_CpuDevice,
        memory_allocated=memory_allocated,
        memory_reserved=memory_allocated,
        max_memory_allocated=max_memory_allocated,
        max_memory_reserved=max_memory_allocated,
        mem_get_info=mem_get_info,
        manual_seed=torch.manual_seed,
        manual_seed_all=torch.manual_seed,
        get_rng_state=lambda device=None: torch.get_rng_state(),
        set_rng_state=lambda state, device=None: torch.set_rng_state(state),
        get_device_name=lambda device=None: "cpu",
        get_device_capability=lambda device=None: (None, None),
    )
    return module


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """Chosen with ``VERL_PLATFORM=cpu``."""

    device_name = "cpu"
    vendor_name = "cpu"  # selects no engine of its own
    device_module = _device_module()  # verl uses it in place of torch.cuda

    set_device = synchronize = empty_cache = set_allocator_settings = _nothing
    profiler_start = profiler_stop = cudart = _nothing

    def is_available(self) -> bool:
        """There is always a CPU."""
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """Only on request, so that a machine with a GPU is never taken for a CPU one."""
        return is_chosen()

    def current_device(self) -> Any:
        """See :class:`_CpuDevice`."""
        return _CpuDevice()

    def device_count(self) -> int:
        """One device per process."""
        return 1

    def manual_seed(self, seed: int) -> None:
        """Seed torch."""
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        """A CPU has none."""
        return (None, None)

    def communication_backend_name(self) -> str:
        """The collectives of the CPU."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """A variable that nobody sets, so that nothing is hidden."""
        return "VERL_AIR_CPU_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """No profiler ranges."""
        yield

    def ray_resource_name(self) -> str:
        """verl's ``_check_resource_available`` counts only GPU and NPU."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """Keep Ray from touching CUDA_VISIBLE_DEVICES."""
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        """False selects the transfer of weights through shared memory."""
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        """vLLM's CPU back end: a small cache, and threads left to the operating system."""
        return {name: os.environ.get(name, value) for name, value in VLLM_DEFAULTS.items()}


def use_single_backend(module: Any) -> None:
    """Wrap ``verl.utils.distributed.initialize_global_process_group_ray`` so that its default back end is plain gloo.

    verl names a back end for the CPU and one for the device, ``"cpu:gloo,cpu:gloo"``, and torch rejects the pair.
    """

    def with_gloo(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        timeout_second = args[0] if args else kwargs.get("timeout_second")
        backend = args[1] if len(args) > 1 else kwargs.get("backend")
        return wrapped(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    wrap_function_wrapper(module, "initialize_global_process_group_ray", with_gloo)
