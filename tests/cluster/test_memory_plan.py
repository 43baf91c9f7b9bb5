"""The plan of a recipe, and every reason to refuse one: sizes that do not divide, and what cannot fit."""

from __future__ import annotations

import re

import pytest

from tests.conftest import RECIPES
from verl_air.cluster.memory import GIB
from verl_air.cluster.memory_plan import MemoryPlan, plan_memory
from verl_air.cluster.size_checks import check_sizes
from verl_air.compose import read_recipe
from verl_air.errors import ConfigError

FSDP, MEGATRON, EXPERTS = (
    "grpo-qwen2.5_14b-1x8-fsdp2",
    "grpo-qwen2.5_14b-2x8-megatron",
    "grpo-qwen3_30b_a3b-3x8-megatron",
)
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


SIZES = {
    "tp x pp x cp": (MEGATRON, [f"{CORE}.context_parallel_size=2"], r"tp 2 x pp 2 x cp 2=8 does not divide .* \(12\)"),
    "heads by tp": (
        MEGATRON,
        [f"{CORE}.tensor_model_parallel_size=6"],
        "tensor_model_parallel_size=6 does not divide attention heads",
    ),
    "key-value heads by tp": (
        MEGATRON,
        [f"{CORE}.tensor_model_parallel_size=5", "trainer.n_gpus_per_node=10"],
        "tensor_model_parallel_size=5 is neither a divisor nor a multiple of the 8 key-value heads",
    ),
    "layers by pp": (
        MEGATRON,
        [f"{CORE}.pipeline_model_parallel_size=5", "trainer.n_gpus_per_node=5"],
        r"pipeline_model_parallel_size=5 does not divide layers \(48\)",
    ),
    "vpp": (
        MEGATRON,
        [f"{CORE}.virtual_pipeline_model_parallel_size=5"],
        r"pp 2 x vpp 5=10 does not divide layers \(48\)",
    ),
    "experts": (
        EXPERTS,
        [f"{CORE}.expert_model_parallel_size=16", f"{CORE}.tensor_model_parallel_size=1", "trainer.n_gpus_per_node=12"],
        "ep 16 x etp 1 x pp 1=16 does not divide",
    ),
    "experts of a dense model": (
        MEGATRON,
        [f"{CORE}.expert_model_parallel_size=2", f"{CORE}.expert_tensor_parallel_size=1"],
        "the model has no experts",
    ),
    "meta-groups": (FSDP, ["data.train_batch_size=98"], "train_batch_size=98 cannot hold whole meta-groups"),
    "batch by dp": (
        MEGATRON,
        [f"{ROLE}.actor.ppo_mini_batch_size=92", "trainer.n_gpus_per_node=10"],
        "276 trajectories do not divide among the 5 data-parallel ranks",
    ),
    "mini-batch": (
        FSDP,
        [f"{ROLE}.actor.ppo_mini_batch_size=192"],
        "ppo_mini_batch_size=192 is above data.train_batch_size=96",
    ),
    "micro-batch": (
        FSDP,
        [f"{ROLE}.actor.use_dynamic_bsz=false", f"{ROLE}.actor.ppo_micro_batch_size_per_gpu=5"],
        "ppo_micro_batch_size_per_gpu=5 does not divide the 48 trajectories",
    ),
    "vLLM by pool": (
        FSDP,
        [f"{ROLE}.rollout.tensor_model_parallel_size=4"],
        "tensor_model_parallel_size 4 x data_parallel_size 1 does not divide the 6 GPUs",
    ),
    "vLLM by heads": (
        FSDP,
        [f"{ROLE}.rollout.tensor_model_parallel_size=6"],
        r"rollout.tensor_model_parallel_size=6 does not divide attention heads \(40\)",
    ),
    "judge by pool": (
        FSDP,
        [f"{JUDGE}.n_gpus_per_node=1", f"{JUDGE}.rollout.tensor_model_parallel_size=2"],
        f"{JUDGE}.rollout: tensor_model_parallel_size 2",
    ),
    "token budget": (
        FSDP,
        [f"{ROLE}.actor.ppo_max_token_len_per_gpu=4000"],
        "ppo_max_token_len_per_gpu=4000 cannot hold one sequence of 4096 tokens",
    ),
    "model length": (
        FSDP,
        [f"{ROLE}.rollout.max_model_len=4000"],
        "max_model_len=4000 cannot hold one sequence of 4096",
    ),
    "positions": (FSDP, [f"{JUDGE}.rollout.max_model_len=40000"], "longer than the model's 32768 positions"),
    "ulysses": (
        FSDP,
        [f"{ROLE}.actor.fsdp_config.ulysses_sequence_parallel_size=3"],
        "ulysses_sequence_parallel_size=3 does not divide attention heads",
    ),
    "shards": (FSDP, [f"{ROLE}.actor.fsdp_config.fsdp_size=4"], r"fsdp_config.fsdp_size=4 does not divide .* \(6\)"),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_do_not_divide(name: str) -> None:
    recipe, overrides, message = SIZES[name]
    with pytest.raises(ConfigError, match=message):
        check_sizes(read_recipe(recipe, overrides, config_dir=RECIPES))


MISFITS = {
    "update": ([], 60.0, r"update needs about 64\.7 GiB per GPU and there are 60\.0; .* is optimizer states"),
    "rollout": (
        [f"{ROLE}.actor.fsdp_config.optimizer_offload=false", f"{ROLE}.actor.fsdp_config.param_offload=false"],
        79.0,
        r"rollout needs about 86\.\d GiB",
    ),
    "KV cache": ([f"{ROLE}.rollout.gpu_memory_utilization=0.2"], 79.0, r"leave -1\.0 GiB for the KV cache"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_cannot_fit(name: str) -> None:
    overrides, gib, message = MISFITS[name]
    faults = plan(FSDP, *overrides, gib=gib).faults
    assert any(re.search(message, fault) for fault in faults), faults


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
    assert own.pools[0].engines == 2
    assert not any(part.name.startswith(("trainer", "overhead")) for part in own.phases[1].parts)
    assert not any(part.name.startswith("vLLM") for part in own.phases[0].parts)
