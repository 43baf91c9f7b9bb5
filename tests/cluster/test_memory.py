"""Memory against numbers computed independently, and against properties that any layout must have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_air.cluster.model_shapes import find_shapes
from verl_air.cluster.trainer_memory import ParallelLayout as Layout
from verl_air.cluster.trainer_memory import (
    TrainerSettings,
    fsdp_parts,
    layer_activation_bytes,
    megatron_parts,
    megatron_stages,
    total,
)
from verl_air.cluster.vllm_memory import GIB

DENSE = find_shapes("Qwen/Qwen2.5-14B")
EXPERTS = find_shapes("Qwen/Qwen3-30B-A3B")
SETTINGS = TrainerSettings(tokens=8192, recompute=True)


def by_name(parts) -> dict[str, float]:
    return {part.name: part.bytes / GIB for part in parts}


def test_fsdp_states_are_16_bytes_a_parameter_over_the_shards() -> None:
    parts = by_name(fsdp_parts(DENSE, Layout("fsdp2", 1, 8, shards=8), SETTINGS))
    assert parts["weights"] + parts["gradients"] + parts["optimizer states"] == pytest.approx(27.51, abs=0.01)
    assert parts["activations: layer inputs"] == 3.75  # 8192 x 5120 x 2 B x 48
    assert parts["logits"] == pytest.approx(8192 * 152064 * 8 / 2**30)


def test_activations_of_a_layer_by_hand() -> None:
    assert layer_activation_bytes(DENSE) == 16 * 5120 + 6 * (5120 + 1024) + 8 * 13824 == 229_376
    assert layer_activation_bytes(EXPERTS) == 16 * 2048 + 6 * (4096 + 512) + 8 * (8 * 768 + 4 * 2048)


def test_without_recomputation_every_layer_keeps_all() -> None:
    layout = Layout("fsdp2", 1, 8, shards=8)
    parts = by_name(fsdp_parts(DENSE, layout, TrainerSettings(tokens=8192, recompute=False)))
    assert parts["activations"] == pytest.approx(8192 * 229_376 * 48 / 2**30)


def test_megatron_by_hand() -> None:
    """tp 2 x pp 2 on 12 GPUs: half the layers, half of each, half of one embedding."""
    layout = Layout("megatron", 2, 6, tensor=2, pipeline=2, sequence_parallel=True)
    first, last = megatron_stages(DENSE, layout)
    own = (24 * DENSE.layer + DENSE.embedding) / 2
    assert first.shared == last.shared == own
    parts = by_name(megatron_parts(DENSE, layout, SETTINGS, last))
    assert parts["weights"] == pytest.approx(2 * own / 2**30)
    assert parts["gradients"] == pytest.approx(4 * own / 2**30)
    assert parts["optimizer states"] == pytest.approx(12 * own / 3 / 2**30)
    assert parts["logits"] == pytest.approx(8192 * 152064 / 2 * 8 / 2**30)
    inputs = by_name(megatron_parts(DENSE, layout, SETTINGS, first))["activations: layer inputs"]
    assert inputs == 2 * parts["activations: layer inputs"]  # two micro-batches in flight


def test_experts_are_split_by_their_own_sizes() -> None:
    layout = Layout("megatron", 2, 8, tensor=2, expert=8, sequence_parallel=True)
    (stage,) = megatron_stages(EXPERTS, layout)
    assert stage.experts == 48 * 16 * EXPERTS.expert
    parts = by_name(megatron_parts(EXPERTS, layout, SETTINGS, stage))
    assert parts["optimizer states"] == pytest.approx(12 * (stage.shared / 8 + stage.experts / 2) / 2**30)


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))
def test_all_gpus_together_hold_the_model_at_least_once(tensor: int, pipeline: int, context: int) -> None:
    layout = Layout("megatron", 8, 8, tensor=tensor, pipeline=pipeline, context=context, sequence_parallel=tensor > 1)
    stages = megatron_stages(DENSE, layout)
    shares = [stage.shared * tensor * pipeline for stage in stages]
    assert all(share >= DENSE.parameters * 0.94 for share in shares)
    split, whole = (Layout("megatron", 8, 8, tensor=t, pipeline=pipeline, context=context) for t in (tensor, 1))
    most = [
        max(total(list(megatron_parts(DENSE, lay, SETTINGS, s))) for s in megatron_stages(DENSE, lay))
        for lay in (split, whole)
    ]
    assert most[0] <= most[1] * (1 + 1e-9)


@given(st.integers(1, 64), st.integers(1, 20_000))
def test_more_shards_or_fewer_tokens_never_need_more(shards: int, tokens: int) -> None:
    def needs(shards: int, tokens: int) -> float:
        layout = Layout("fsdp2", 1, shards, shards=shards)
        return total(list(fsdp_parts(DENSE, layout, TrainerSettings(tokens=tokens, recompute=True))))

    assert needs(shards + 1, tokens) < needs(shards, tokens) < needs(shards, tokens + 1)
