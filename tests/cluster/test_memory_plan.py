"""The memory plan: parts computed by hand, properties that any layout must have, and all that cannot fit."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import RECIPES
from verl_air.cluster.layout import ParallelLayout
from verl_air.cluster.memory_plan import MemoryPlan, plan_memory
from verl_air.cluster.model_shapes import find_shapes
from verl_air.cluster.trainer_memory import (
    MemoryPart,
    TrainerSettings,
    fsdp_parts,
    layer_activation_bytes,
    megatron_parts,
    megatron_stages,
    total,
    update_parts,
)
from verl_air.cluster.vllm_memory import GIB
from verl_air.compose import read_recipe
from verl_air.errors import ConfigError

DENSE = find_shapes("Qwen/Qwen2.5-14B")
EXPERTS = find_shapes("Qwen/Qwen3-30B-A3B")
SETTINGS = TrainerSettings(tokens=8192, recompute=True)
EIGHT_SHARDS = ParallelLayout("fsdp2", 1, 8, shards=8)


def by_name(parts: Iterable[MemoryPart]) -> dict[str, float]:
    return {part.name: part.bytes / GIB for part in parts}


def test_fsdp_by_hand() -> None:
    parts = by_name(fsdp_parts(DENSE, EIGHT_SHARDS, SETTINGS))
    assert parts["weights"] + parts["gradients"] + parts["optimizer states"] == pytest.approx(27.51, abs=0.01)
    assert parts["activations: layer inputs"] == 3.75  # 8192 x 5120 x 2 B x 48
    assert parts["logits"] == pytest.approx(8192 * 152064 * 8 / 2**30)
    every_layer = by_name(fsdp_parts(DENSE, EIGHT_SHARDS, SETTINGS._replace(recompute=False)))
    assert every_layer["activations"] == pytest.approx(8192 * 229_376 * 48 / 2**30)


def test_activations_of_a_layer_by_hand() -> None:
    assert layer_activation_bytes(DENSE) == 16 * 5120 + 6 * (5120 + 1024) + 8 * 13824 == 229_376
    assert layer_activation_bytes(EXPERTS) == 16 * 2048 + 6 * (4096 + 512) + 8 * (8 * 768 + 4 * 2048)


def test_megatron_by_hand() -> None:
    """tp 2 x pp 2 on 12 GPUs: half the layers, half of each, half of one embedding."""
    layout = ParallelLayout("megatron", 2, 6, tensor=2, pipeline=2, sequence_parallel=True)
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
    layout = ParallelLayout("megatron", 2, 8, tensor=2, expert=8, sequence_parallel=True)
    (stage,) = megatron_stages(EXPERTS, layout)
    assert stage.experts == 48 * 16 * 3 * 2048 * 768
    parts = by_name(megatron_parts(EXPERTS, layout, SETTINGS, stage))
    assert parts["optimizer states"] == pytest.approx(12 * (stage.shared / 8 + stage.experts / 2) / 2**30)


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))
def test_all_gpus_together_hold_the_model_at_least_once(tensor: int, pipeline: int, context: int) -> None:
    split, whole = (
        ParallelLayout("megatron", 8, 8, tensor=size, pipeline=pipeline, context=context) for size in (tensor, 1)
    )
    for stage in megatron_stages(DENSE, split):
        assert stage.shared * tensor * pipeline >= DENSE.parameters * 0.94
    needed, unsplit = (total(update_parts(DENSE, layout, SETTINGS)) for layout in (split, whole))
    assert needed <= unsplit * (1 + 1e-9)


@given(st.integers(1, 64), st.integers(1, 20_000))
def test_more_shards_or_fewer_tokens_never_need_more(shards: int, tokens: int) -> None:
    def needs(shards: int, tokens: int) -> float:
        layout = ParallelLayout("fsdp2", 1, shards, shards=shards)
        return total(fsdp_parts(DENSE, layout, TrainerSettings(tokens=tokens, recompute=True)))

    assert needs(shards + 1, tokens) < needs(shards, tokens) < needs(shards, tokens + 1)


FSDP, MEGATRON = "grpo-qwen2.5_14b-1x8-fsdp2", "grpo-qwen2.5_14b-2x8-megatron"
ROLE, JUDGE = "actor_rollout_ref", "reward.reward_model"
CORE, OFFLOADED = f"{ROLE}.actor.megatron", f"{ROLE}.actor.fsdp_config"


def plan(recipe: str, *overrides: str, gib: float = 79.0) -> MemoryPlan:
    return plan_memory(read_recipe(recipe, overrides, config_dir=RECIPES), gib * GIB)


def test_the_table() -> None:
    text = "\n".join(plan(FSDP).table())
    assert "14.77 B parameters" in text
    assert "actor_rollout_ref.rollout: 3 engine(s), tp 2, on 6 GPU(s)" in text
    assert "24 intents x 4 prompts x 3 completions = 288 trajectories" in text
    assert re.search(r"weights +9\.2  4 B x 14\.77 B parameters / 6 shards", text)
    assert "offloaded to the memory of each node: 165 GiB" in text
    assert text.count("together") == 3
    assert plan(FSDP).summary == (
        "estimated GiB per GPU of 79: update 64.7, rollout 59.3, reward model (own GPUs) 67.1"
    )


FAULTS = {
    "vLLM by pool": (
        [f"{ROLE}.rollout.tensor_model_parallel_size=4"],
        f"{ROLE}.rollout.tensor_model_parallel_size=4 x data_parallel_size=1 does not divide the 6 GPUs",
    ),
    "vLLM by heads": (
        [f"{ROLE}.rollout.tensor_model_parallel_size=6"],
        r"rollout.tensor_model_parallel_size=6 does not divide attention heads \(40\)",
    ),
    "vLLM by key-value heads": (
        [f"{ROLE}.rollout.tensor_model_parallel_size=5", "trainer.n_gpus_per_node=5"],
        "tensor_model_parallel_size=5 is neither a divisor nor a multiple of 8 kv heads",
    ),
    "judge by pool": (
        [f"{JUDGE}.n_gpus_per_node=1", f"{JUDGE}.rollout.tensor_model_parallel_size=2"],
        f"{JUDGE}.rollout.tensor_model_parallel_size=2 x data_parallel_size=1 does not divide the 1 GPUs",
    ),
    "model length": ([f"{ROLE}.rollout.max_model_len=4000"], "max_model_len=4000 cannot hold one sequence of 4096"),
    "positions": ([f"{JUDGE}.rollout.max_model_len=40000"], "longer than the model's 32768 positions"),
    "rollout": (
        [f"{OFFLOADED}.optimizer_offload=false", f"{OFFLOADED}.param_offload=false"],
        r"rollout needs about 86\.\d GiB",
    ),
    "KV cache": ([f"{ROLE}.rollout.gpu_memory_utilization=0.2"], r"leave -1\.0 GiB for the KV cache"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_fit(name: str) -> None:
    overrides, message = FAULTS[name]
    faults = plan(FSDP, *overrides).faults
    assert any(re.search(message, fault) for fault in faults), faults


def test_a_smaller_gpu_names_the_largest_part() -> None:
    (fault,) = plan(FSDP, gib=60.0).faults
    assert re.search(r"update needs about 64\.7 GiB per GPU and there are 60\.0; .* is optimizer states", fault)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{ROLE}.model.path=acme/model", "acme/model: no such model folder"),
        (f"{ROLE}.actor.strategy=torchtitan", "strategy=torchtitan: only fsdp, fsdp2, megatron can be planned for"),
    ],
)
def test_what_cannot_be_planned_for(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(FSDP, override)


def test_tensor_parallel_groups_across_nodes_are_noted() -> None:
    (note,) = plan(MEGATRON, f"{CORE}.tensor_model_parallel_size=4", f"{CORE}.pipeline_model_parallel_size=1").notes
    assert "tp 4 does not divide the 6 GPUs of a node" in note


def test_a_rollout_on_gpus_of_its_own_leaves_the_trainers_alone() -> None:
    own = plan(FSDP, f"{ROLE}.rollout.nnodes=1", f"{ROLE}.rollout.n_gpus_per_node=4")
    assert any("2 engine(s), tp 2, on 4 GPU(s)" in line for line in own.before)
    update, rollout, _ = own.phases
    assert not any(part.name.startswith(("trainer", "overhead")) for part in rollout.parts)
    assert not any(part.name.startswith("vLLM") for part in update.parts)
