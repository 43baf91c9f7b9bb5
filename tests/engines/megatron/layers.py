"""A transformer block for the CPU whose parameters are named and sharded as those of the Transformer Engine block.

Three parts are missing from megatron-core without TE: attention over packed sequences (``thd``) and under context
parallelism, an RMSNorm that supports sequence parallelism, and a norm fused into the linear layer after it.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from megatron.core import parallel_state as mpu
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.tensor_parallel.layers import ColumnParallelLinear
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


def block_spec(config: Any, vp_stage: int | None) -> Any:
    """megatron-core's own local block with the three parts put in."""
    block = copy.copy(
        get_gpt_decoder_block_spec(config, use_transformer_engine=False, normalization="RMSNorm", vp_stage=vp_stage)
    )
    block.layer_specs = [_layer_spec(layer, config.qk_layernorm) for layer in block.layer_specs]
    block.layer_norm = RmsNorm
    return block


def _layer_spec(spec: Any, qk_norm: bool) -> Any:
    spec = copy.deepcopy(spec)
    parts = spec.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = IdentityOp
    attention = parts.self_attention.submodules
    attention.linear_qkv = NormThenLinear
    attention.core_attention = PackedAttention
    if qk_norm:  # Qwen3 has these two
        attention.q_layernorm = attention.k_layernorm = RmsNorm
    parts.mlp.submodules.linear_fc1 = NormThenLinear
    parts.sharded_state_dict_keys_map = {}
    return spec


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


class RmsNorm(nn.Module):
    """The last norm of a block, and those of queries and keys."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        # Under sequence parallelism each rank sees a part of the tokens; megatron-core sums marked gradients over tp.
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return _rms_norm(x, self.weight, self.eps)


class NormThenLinear(ColumnParallelLinear):
    """The parameter names of ``TELayerNormColumnParallelLinear``: ``weight``, ``bias``, ``layer_norm_weight``."""

    def __init__(self, input_size: int, output_size: int, *, config: Any, **kwargs: Any) -> None:
        super().__init__(input_size, output_size, config=config, **kwargs)
        self.layer_norm_weight = nn.Parameter(torch.ones(input_size, dtype=config.params_dtype))
        self.layer_norm_weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        self.eps = config.layernorm_epsilon

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().forward(_rms_norm(x, self.layer_norm_weight, self.eps), *args, **kwargs)


class PackedAttention(MegatronModule):
    """Causal attention within each packed sequence; under context parallelism each rank gathers whole sequences."""

    def __init__(self, config: Any, softmax_scale: float | None = None, **_: Any) -> None:
        super().__init__(config=config)
        self.scale = softmax_scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, packed_seq_params: Any, **__: Any) -> Tensor:
        """Query, key, value: [tokens of this rank, heads, width]. Returns [tokens of this rank, heads * width]."""
        cu_seqlens = packed_seq_params.cu_seqlens_q_padded
        bounds = [int(end) for end in (packed_seq_params.cu_seqlens_q if cu_seqlens is None else cu_seqlens)]
        spans = list(pairwise(bounds))
        if mpu.get_context_parallel_world_size() == 1:
            outputs = [self._attend(query[start:end], key[start:end], value[start:end]) for start, end in spans]
        else:
            parts = [_Gather.apply(part, mpu.get_context_parallel_group()) for part in (query, key, value)]
            outputs = [self._own_part(parts, start, end) for start, end in spans]
        return torch.cat(outputs).flatten(1)

    def _own_part(self, parts: list[Tensor], start: int, end: int) -> Tensor:
        """Attention over the whole of one sequence, of which this rank's two chunks are kept."""
        size, rank = mpu.get_context_parallel_world_size(), mpu.get_context_parallel_rank()
        chunk = (end - start) // (2 * size)
        local = slice(start // size, start // size + 2 * chunk)
        attended = self._attend(*(_whole_sequence(part[:, local], chunk) for part in parts))
        chunks = attended.split(chunk)
        return torch.cat([chunks[rank], chunks[2 * size - 1 - rank]])

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        attended = scaled_dot_product_attention(query, key, value, is_causal=True, scale=self.scale, enable_gqa=True)
        return attended.transpose(0, 1)


def _whole_sequence(gathered: Tensor, chunk: int) -> Tensor:
    """Undo the zigzag: of 2 * size chunks, rank r holds the r-th and the r-th from the end. [size, 2 * chunk, ...]."""
    front, back = gathered[:, :chunk], gathered[:, chunk:]
    return torch.cat([*front, *reversed(back.unbind())])


class _Gather(torch.autograd.Function):
    """All ranks' parts, [size, ...]; backwards each rank gets the sum of the gradients of its own part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Any) -> Tensor:
        ctx.group = group
        parts = [torch.empty_like(part) for _ in range(torch.distributed.get_world_size(group))]
        torch.distributed.all_gather(parts, part.contiguous(), group=group)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient, group=ctx.group)
        return gradient[torch.distributed.get_rank(ctx.group)], None
