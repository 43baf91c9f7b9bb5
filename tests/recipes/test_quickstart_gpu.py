"""The quickstart on a GPU differs from the one without in its hardware, and in nothing that is learnt from."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from tests.conftest import RECIPES
from verl_air.compose import compose_recipe
from verl_air.training.preflight import check_settings

GPU: DictConfig = compose_recipe(RECIPES, "quickstart-gpu", ["playground=here"])
CPU: DictConfig = compose_recipe(RECIPES, "quickstart", ["playground=here"])


def test_nothing_of_the_cpu_is_left() -> None:
    assert GPU.trainer.device == "cuda"
    assert GPU.actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls is None  # verl then takes its own
    assert GPU.actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes is None
    assert GPU.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype == "bf16"
    assert not GPU.reward.reward_model.enable, "a second server would need a second GPU"
    assert GPU.reward.custom_reward_function.reward_kwargs.judge.in_process == GPU.actor_rollout_ref.model.path


def test_what_is_learnt_is_the_same() -> None:
    for key in ("air", "data", "algorithm", "actor_rollout_ref.actor.optim", "actor_rollout_ref.rollout.n"):
        assert OmegaConf.select(GPU, key) == OmegaConf.select(CPU, key)
    for key in ("routes", "options", "modules"):
        path = f"reward.custom_reward_function.reward_kwargs.{key}"
        assert OmegaConf.select(GPU, path) == OmegaConf.select(CPU, path)


def test_it_has_a_folder_of_its_own() -> None:
    assert GPU.run_dir != CPU.run_dir


def test_our_checks_accept_it() -> None:
    check_settings(GPU)
