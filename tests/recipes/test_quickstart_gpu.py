"""The quickstart on a GPU differs from the one without in its hardware, and in nothing that is learnt from."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.conftest import composed, edited
from verl_air.training.preflight import check_settings


@pytest.fixture
def gpu() -> DictConfig:
    return edited(composed("quickstart-gpu"), "playground=here")


@pytest.fixture
def cpu() -> DictConfig:
    return edited(composed("quickstart"), "playground=here")


def test_nothing_of_the_cpu_is_left(gpu: DictConfig) -> None:
    assert gpu.trainer.device == "cuda"
    assert gpu.actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls is None  # verl then takes its own
    assert gpu.actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes is None
    assert gpu.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype == "bf16"
    assert not gpu.reward.reward_model.enable, "a second server would need a second GPU"
    assert gpu.reward.custom_reward_function.reward_kwargs.judge.in_process == gpu.actor_rollout_ref.model.path


def test_what_is_learnt_is_the_same(gpu: DictConfig, cpu: DictConfig) -> None:
    for key in ("air", "data", "algorithm", "actor_rollout_ref.actor.optim", "actor_rollout_ref.rollout.n"):
        assert OmegaConf.select(gpu, key) == OmegaConf.select(cpu, key)
    for key in ("routes", "options", "modules"):
        path = f"reward.custom_reward_function.reward_kwargs.{key}"
        assert OmegaConf.select(gpu, path) == OmegaConf.select(cpu, path)


def test_it_has_a_folder_of_its_own(gpu: DictConfig, cpu: DictConfig) -> None:
    assert gpu.run_dir != cpu.run_dir


def test_our_checks_accept_it(gpu: DictConfig) -> None:
    check_settings(gpu)
