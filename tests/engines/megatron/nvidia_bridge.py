"""NVIDIA's megatron-bridge on the CPU; verl's default bridge, with ``vanilla_mbridge=False``.

Written for megatron-bridge 0.3.1. It is not in the environment, since it asks for transformers < 5 and for Transformer
Engine, and is used with neither: ``pip install --no-deps megatron-bridge==0.3.1``.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from contextlib import nullcontext
from typing import Any

import torch

_installed = False


def is_there() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("megatron.bridge") is not None


def install() -> None:
    """Patch this process, once, after ``shim.install``."""
    global _installed
    if _installed:
        return
    _installed = True
    _pretend_what_is_only_imported()
    _scatter_contiguous_parts()
    _do_without_streams()
    _use_local_layers()


def _pretend_what_is_only_imported() -> None:
    """Transformer Engine, for classes to compare with, and Mamba's Triton kernels; nothing of either is ever used."""
    from megatron.core.extensions.transformer_engine import HAVE_TE

    assert not HAVE_TE  # megatron-core has looked already and is not to be fooled
    _Absent("transformer_engine").pytorch  # noqa: B018 - makes the module
    _Absent("megatron.core.inference.contexts.attention_context.triton.tensor_ops")


class _Absent(types.ModuleType):
    """A module whose capitalised attributes are empty classes, and whose others are modules like it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__version__ = "0"
        self.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = type(name, (torch.nn.Module,), {}) if name[0].isupper() else _Absent(f"{self.__name__}.{name}")
        setattr(self, name, found)
        return found


def _scatter_contiguous_parts() -> None:
    """The bridge scatters views of a whole weight; gloo sends the memory under a view, which is another part's."""
    scatter = torch.distributed.scatter

    def scatter_contiguous(tensor: torch.Tensor, scatter_list: Any = None, **kwargs: Any) -> Any:
        parts = scatter_list and [part.contiguous() for part in scatter_list]
        return scatter(tensor, parts, **kwargs)

    distributed: Any = torch.distributed
    distributed.scatter = scatter_contiguous


def _do_without_streams() -> None:
    cuda: Any = torch.cuda
    cuda.Stream = cuda.current_stream = lambda *args, **kwargs: _Stream()
    cuda.stream = lambda stream: nullcontext()


class _Stream:
    """What the CPU was asked to do is done."""

    def wait_stream(self, other: _Stream) -> None: ...


def _use_local_layers() -> None:
    from megatron.bridge.models.gpt_provider import GPTModelProvider

    from tests.engines.megatron.layers import NormThenLinear, block_spec

    # The bridge recognises by its name a layer whose weight is split over tp and whose norm is not.
    NormThenLinear.__name__ = "TELayerNormColumnParallelLinear"
    finalize = GPTModelProvider.finalize

    def finalize_with_local_layers(self: Any) -> None:
        self.transformer_layer_spec = block_spec  # the provider looks for the parameter vp_stage by name
        finalize(self)

    GPTModelProvider.finalize = finalize_with_local_layers
