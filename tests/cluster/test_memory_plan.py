"""The memory plan of a recipe, and all that cannot fit."""

from __future__ import annotations

import re

import pytest

from tests.conftest import RECIPES
from verl_air.cluster.memory_plan import MemoryPlan, plan_memory
from verl_air.cluster.vllm_memory import GIB
from verl_air.compose import read_recipe
from verl_air.errors import ConfigError

FSDP, MEGATRON = "grpo-qwen2.5_14b-1x8-fsdp2", "grpo-qwen2.5_14b-2x8-megatron"
ROLE = "actor_rollout_ref"
CORE = f"{ROLE}.actor.megatron"
JUDGE = "reward.reward_model"


def plan(recipe: str, *overrides: str, gib: float = 79.0) -> MemoryPlan:
    return plan_memory(read_recipe(recipe, overrides, config_dir=RECIPES), gib * GIB)


def test_the_table() -> None:
    text = "\n".join(plan(FSDP).table())
    assert "14.77 B parameters" in text
    assert "24 intents x 4 prompts x 3 completions = 288 trajectories" in text
    assert re.search(r"weights +9\.2  4 B x 14\.77 B parameters / 6 shards", text)
    assert text.count("together") == 3
    assert "GiB per GPU of 79: update 64.7, rollout 59.3, reward model (own GPUs) 67.1" in plan(FSDP).summary()


OFFLOADED = f"{ROLE}.actor.fsdp_config"
FAULTS = {
    "vLLM by pool": (
        [f"{ROLE}.rollout.tensor_model_parallel_size=4"],
        f"{ROLE}.rollout.tensor_model_parallel_size=4 x data_parallel_size=1 does not divide the 6 GPUs",
    ),
    "vLLM by heads": (
        [f"{ROLE}.rollout.tensor_model_parallel_size=6"],
        "rollout.tensor_model_parallel_size=6 does not divide the 40 attention heads",
    ),
    "vLLM by key-value heads": (
        [f"{ROLE}.rollout.tensor_model_parallel_size=5", "trainer.n_gpus_per_node=5"],
        "tensor_model_parallel_size=5 is neither a divisor nor a multiple of the 8 key-value heads",
    ),
    "judge by pool": (
        [f"{JUDGE}.n_gpus_per_node=1", f"{JUDGE}.rollout.tensor_model_parallel_size=2"],
        f"{JUDGE}.rollout.tensor_model_parallel_size=2 x data_parallel_size=1 does not divide the 1 GPUs",
    ),
    "model length": (
        [f"{ROLE}.rollout.max_model_len=4000"],
        "max_model_len=4000 cannot hold one sequence of 4096",
    ),
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


def test_a_model_or_an_engine_that_cannot_be_planned_for() -> None:
    with pytest.raises(ConfigError, match="acme/model: no such model folder"):
        plan(FSDP, f"{ROLE}.model.path=acme/model")
    with pytest.raises(ConfigError, match="strategy=torchtitan: only fsdp, fsdp2, megatron can be planned for"):
        plan(FSDP, f"{ROLE}.actor.strategy=torchtitan")


def test_tensor_parallel_groups_across_nodes_are_noted() -> None:
    sizes = [f"{CORE}.tensor_model_parallel_size=4", f"{CORE}.pipeline_model_parallel_size=1"]
    (note,) = plan(MEGATRON, *sizes).notes
    assert "tp 4 does not divide the 6 GPUs of a node" in note


def test_a_rollout_on_gpus_of_its_own_leaves_the_trainers_alone() -> None:
    own = plan(FSDP, f"{ROLE}.rollout.nnodes=1", f"{ROLE}.rollout.n_gpus_per_node=4")
    assert next(iter(own.shapes)).engines == 2
    assert not any(part.name.startswith(("trainer", "overhead")) for part in own.phases[1].parts)
    assert not any(part.name.startswith("vLLM") for part in own.phases[0].parts)
