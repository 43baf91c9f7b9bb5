"""What megatron-core wants of CUDA, answered by the CPU, so that verl's own Megatron engine runs on gloo.

Written for megatron-core 0.16.1, mbridge 0.15.1, verl 0.9.1 and torch 2.13.0 without CUDA, Transformer Engine or Apex.
It belongs to the tests: nothing of it is shipped. It patches torch for the whole process, so only worker processes
install it. The patches are plain assignments: a ``TorchFunctionMode`` would hold in one thread only.

================================  =====================================================================================
what megatron-core does           what it gets here
================================  =====================================================================================
``torch.cuda.current_device()``   ``torch.device("cpu")``, good for any ``device=``
``device="cuda"`` in factories    the same factory on the CPU
``tensor.cuda()``                 the tensor, where it is
the CUDA random state             the CPU's
asks a tensor's type by name      ``torch.cuda.FloatTensor`` for a float32 tensor, as its optimizer expects
builds the block from TE layers   local layers under the names that TE's parameters have (``layers.py``)
================================  =====================================================================================
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

_FACTORIES = ("arange", "empty", "full", "ones", "rand", "randn", "tensor", "zeros")
_TYPE_NAMES = {torch.float32: "torch.cuda.FloatTensor", torch.bfloat16: "torch.cuda.BFloat16Tensor"}
_installed = False


def install(*, register_engine: bool = True) -> None:
    """Patch this process, once, and register verl's Megatron engine for the device ``cpu``.

    Args:
        register_engine: False where one is registered already.
    """
    global _installed
    if _installed:
        return
    _installed = True
    _answer_for_cuda()
    _build_factories_on_the_cpu()
    _name_types_as_cuda_does()
    _use_the_cpu_random_state()
    _use_local_layers()
    if register_engine:
        _register_engine()


def _answer_for_cuda() -> None:
    cuda: Any = torch.cuda
    cuda.current_device = lambda: torch.device("cpu")
    cuda.synchronize = lambda device=None: None
    cuda.empty_cache = lambda: None
    cuda.manual_seed = torch.manual_seed
    cuda.get_rng_state = lambda device=None: torch.get_rng_state()
    cuda.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    tensor: Any = torch.Tensor
    tensor.cuda = lambda self, *args, **kwargs: self


def _build_factories_on_the_cpu() -> None:
    def on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(factory)
        def build(*args: Any, **kwargs: Any) -> Any:
            if str(kwargs.get("device")).startswith("cuda"):
                kwargs["device"] = "cpu"
            return factory(*args, **kwargs)

        return build

    for name in _FACTORIES:
        setattr(torch, name, on_cpu(getattr(torch, name)))


def _name_types_as_cuda_does() -> None:
    tensor: Any = torch.Tensor
    own = tensor.type

    def type_name(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return own(self, *args, **kwargs)
        return _TYPE_NAMES.get(self.dtype) or own(self)

    tensor.type = type_name


def _use_the_cpu_random_state() -> None:
    import megatron.core.tensor_parallel.random as random

    random._get_cuda_rng_state = lambda device="cuda", clone=False, graph_safe=False: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, device=-1, graph_safe=False: torch.set_rng_state(state)


def _use_local_layers() -> None:
    import mbridge.core.llm_bridge as bridge

    from tests.engines.megatron.layers import block_spec

    def get_gpt_decoder_block_spec(config: Any, use_transformer_engine: bool = True, vp_stage: Any = None) -> Any:
        return block_spec(config, vp_stage)  # mbridge looks for the parameter vp_stage by name

    bridge.get_gpt_decoder_block_spec = get_gpt_decoder_block_spec


def _register_engine() -> None:
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead

    EngineRegistry.register(model_type="language_model", backend="megatron", device="cpu")(MegatronEngineWithLMHead)
