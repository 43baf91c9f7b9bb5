"""``verl-air plan``: the table, and every reason to say no in one line with status 2."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import RECIPES
from verl_air.cli import main

FSDP, MEGATRON, EXPERTS = (
    "grpo-qwen2.5_14b-1x8-fsdp2",
    "grpo-qwen2.5_14b-2x8-megatron",
    "grpo-qwen3_30b_a3b-3x8-megatron",
)
ROLE = "actor_rollout_ref"
CORE = f"{ROLE}.actor.megatron"


def plan(recipe: str, *arguments: str) -> int:
    return main(["plan", "--config-dir", str(RECIPES), recipe, *arguments])


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(FSDP) == 0
    out = capsys.readouterr().out
    assert "14.77 B parameters" in out
    assert "24 intents x 4 prompts x 3 completions = 288 trajectories" in out
    assert re.search(r"weights +9\.2  4 B x 14\.77 B parameters / 6 shards", out)
    assert out.count("together") == 3


FAULTS = {
    "tp x pp x cp": (MEGATRON, [f"{CORE}.context_parallel_size=2"], r"tp 2 x pp 2 x cp 2=8 does not divide .* \(12\)"),
    "heads by tp": (
        MEGATRON,
        [f"{CORE}.tensor_model_parallel_size=6"],
        "tensor_model_parallel_size=6 does not divide attention heads",
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
    "vLLM by pool": (
        FSDP,
        [f"{ROLE}.rollout.tensor_model_parallel_size=4"],
        "tensor_model_parallel_size 4 x data_parallel_size 1 does not divide the 6 GPUs",
    ),
    "vLLM by heads": (
        FSDP,
        [f"{ROLE}.rollout.tensor_model_parallel_size=6"],
        "rollout.tensor_model_parallel_size=6 does not divide 40 attention heads",
    ),
    "judge by pool": (
        FSDP,
        ["reward.reward_model.n_gpus_per_node=1", "reward.reward_model.rollout.tensor_model_parallel_size=2"],
        "reward.reward_model.rollout: tensor_model_parallel_size 2",
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
    "positions": (FSDP, ["reward.reward_model.rollout.max_model_len=40000"], "longer than the model's 32768 positions"),
    "ulysses": (
        FSDP,
        [f"{ROLE}.actor.fsdp_config.ulysses_sequence_parallel_size=3"],
        "ulysses_sequence_parallel_size=3 does not divide attention heads",
    ),
    "update": (
        FSDP,
        ["--gpu-gib", "60"],
        r"update needs about 64\.7 GiB a GPU and there are 60\.0; the largest part is optimizer states",
    ),
    "rollout": (
        FSDP,
        [f"{ROLE}.actor.fsdp_config.optimizer_offload=false", f"{ROLE}.actor.fsdp_config.param_offload=false"],
        r"rollout needs about 86\.\d GiB",
    ),
    "KV cache": (FSDP, [f"{ROLE}.rollout.gpu_memory_utilization=0.2"], r"leave -1\.0 GiB for the KV cache"),
    "no such recipe": ("no-such-recipe", [], "no-such-recipe.yaml does not compose"),
    "unknown model": (FSDP, [f"{ROLE}.model.path=acme/model"], "acme/model: no such model folder"),
    "no config.json": (FSDP, ["--model-config", "/no/such/config.json"], "cannot be read as a model's config.json"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_work_is_one_line_with_status_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, arguments, message = FAULTS[name]
    assert plan(recipe, *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error


def test_tensor_parallel_groups_across_nodes_are_remarked(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [f"{CORE}.tensor_model_parallel_size=4", f"{CORE}.pipeline_model_parallel_size=1"]
    assert plan(MEGATRON, *sizes) == 0
    assert "note: tp 4 does not divide the 6 GPUs of a node" in capsys.readouterr().out


def test_a_file_of_ones_own_and_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], playground_files) -> None:
    shutil.copytree(RECIPES, tmp_path / "mine")
    assert main(["plan", str(tmp_path / "mine" / "quickstart.yaml"), f"playground={playground_files}"]) == 0
    assert "trainer  fsdp2 on 1 x 1 GPUs" in capsys.readouterr().out
