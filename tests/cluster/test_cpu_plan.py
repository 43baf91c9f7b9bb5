"""Sizes of a run without a GPU follow the model; the plan says what such a run takes, and what cannot fit."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.conftest import RECIPES, composed, edited
from verl_air.cluster import cpu_plan
from verl_air.cluster.cpu_plan import CpuSpeed, kv_cache_bytes, measure_speed, micro_batch, plan_cpu, token_bytes
from verl_air.cluster.memory_plan import MemoryPlan
from verl_air.cluster.model_shapes import find_shapes
from verl_air.cluster.vllm_memory import GIB
from verl_air.compose import read_recipe

SMOLLM2, QWEN = "HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"
ROLE, JUDGE = "actor_rollout_ref", "reward.reward_model"
BUCKET = f"{ROLE}.rollout.checkpoint_engine.update_weights_bucket_megabytes"
CACHE = "rollout.engine_kwargs.vllm.kv_cache_memory_bytes"
MICRO_BATCH = f"{ROLE}.actor.ppo_micro_batch_size_per_gpu"
SPEED = CpuSpeed(flops=100e9, bandwidth=10e9)


def plan(*overrides: str, gib: float = 24.0, speed: CpuSpeed = SPEED, free: float = 1.0) -> MemoryPlan:
    return plan_cpu(edited(composed("smollm2-135m-cpu"), *overrides), gib * GIB, speed, free * gib * GIB)


def test_the_quickstarts_sizes_are_what_they_were(quickstart_recipe: DictConfig) -> None:
    sizes = {key: OmegaConf.select(quickstart_recipe, key) for key in (BUCKET, f"{ROLE}.{CACHE}", f"{JUDGE}.{CACHE}")}
    assert list(sizes.values()) == [16, 64 * 2**20, 64 * 2**20]


@pytest.mark.parametrize("model", [SMOLLM2, QWEN])
def test_sizes_follow_the_model(model: str) -> None:
    config = edited(composed("smollm2-135m-cpu"), f"model_path={model}")
    shapes = find_shapes(model)
    assert OmegaConf.select(config, BUCKET) * 2**20 >= 4 * shapes.embedding
    assert OmegaConf.select(config, f"{ROLE}.{CACHE}") >= 4 / 2 * shapes.kv_bytes_per_token() * 384 * 16
    micro = OmegaConf.select(config, MICRO_BATCH)
    assert micro == config.actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu
    assert 24 % micro == 0
    assert micro == 1 or micro * 384 * token_bytes(shapes) <= cpu_plan.MICRO_BATCH_BYTES


def test_a_number_in_a_recipe_replaces_the_size() -> None:
    recipe = read_recipe("smollm2-135m-cpu", [f"{MICRO_BATCH}=12"], config_dir=RECIPES)
    assert OmegaConf.select(recipe, MICRO_BATCH) == 12


@pytest.mark.parametrize("rows", [1, 6, 7, 144])
def test_a_micro_batch_divides_the_rows_and_is_never_empty(rows: int) -> None:
    sizes = [micro_batch(SMOLLM2, rows, 1, 1, length, 0) for length in (1, 64, 512, 100_000)]
    assert all(rows % size == 0 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (rows, 1)


def test_a_cache_holds_at_least_one_sequence() -> None:
    shapes = find_shapes("Qwen/Qwen3-8B")
    assert kv_cache_bytes("Qwen/Qwen3-8B", 64, 32768, 0, 0) >= shapes.kv_bytes_per_token(width=4) * 32768
    assert kv_cache_bytes("Qwen/Qwen3-8B", 64, None, 100, 28) < 2 * GIB


def test_a_model_that_cannot_be_read_gets_the_least_sizes_and_a_warning() -> None:
    with pytest.warns(UserWarning, match="acme/model: no such model folder"):
        assert cpu_plan.bucket_megabytes("acme/model") == 16


def test_the_plan_fits_the_machine_it_was_tried_on() -> None:
    found = plan()
    assert (found.faults, found.notes) == ((), ())
    assert 10 * GIB < found.phases[0].bytes < 20 * GIB
    assert 60 < seconds(found) < 1200
    assert "activations of a micro-batch" in "\n".join(found.table())


FAULTS = {
    "micro-batches of 12": ([f"{MICRO_BATCH}=24"], 24.0, "activations of a micro-batch"),
    "model": (["model_path=Qwen/Qwen2.5-7B-Instruct"], 24.0, "policy, gradients, optimizer"),
    "machine": ([], 8.0, "Ray kills workers above 95%"),
    "bucket": ([f"{BUCKET}=16"], 24.0, "megabytes=16 cannot hold the model's largest tensor: set 109"),
    "shared memory": ([f"{BUCKET}=100000000"], 24.0, "/dev/shm has less free space"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_will_not_fit_is_refused(fault: str) -> None:
    overrides, gib, message = FAULTS[fault]
    assert any(message in found for found in plan(*overrides, gib=gib).faults)


def test_what_works_but_slowly_is_noted() -> None:
    batch = ["data.train_batch_size=240", f"{ROLE}.actor.ppo_mini_batch_size=240", "trainer.total_training_steps=300"]
    found = plan(*batch, gib=48.0, free=0.2)
    assert "only 9.6 GiB are free now" in found.notes[0]
    assert "hours: use a smaller batch" in found.notes[1]
    assert "days for 300 steps" in found.summary


def seconds(found: MemoryPlan) -> int:
    """Of a step, as the table states them."""
    rows = [line.split() for line in found.after if line.startswith("  ")]
    assert [row[0] for row in rows] == ["rollout", "judge,", "log-probs"]
    return sum(int(row[-1]) for row in rows)


def test_time_follows_the_machine_and_the_work() -> None:
    step = seconds(plan())
    assert seconds(plan(speed=CpuSpeed(200e9, 20e9))) == pytest.approx(step / 2, abs=2)
    assert seconds(plan("data.max_prompt_length=640")) > 1.5 * step


@pytest.mark.parametrize("override", [f"{ROLE}.actor.use_kl_loss=true", "air.consistency=0.1"])
def test_a_reference_policy_takes_memory_and_a_pass(override: str) -> None:
    found = plan(override)
    assert "reference policy" in "\n".join(found.table())
    assert seconds(found) > seconds(plan())


def test_a_speed_is_measured() -> None:
    assert min(measure_speed(0.02)) > 1e7
