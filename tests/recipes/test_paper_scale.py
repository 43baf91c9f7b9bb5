"""Recipes at paper scale: they compose, verl's own checks and ours accept them, and they fit their GPUs by the plan."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.conftest import RECIPES, composed, edited
from verl_air.cluster.memory_plan import plan_memory
from verl_air.cluster.model_shapes import find_shapes
from verl_air.cluster.nodes import pools_of, shortfall
from verl_air.cluster.vllm_memory import GIB
from verl_air.compose import read_recipe
from verl_air.errors import ConfigError
from verl_air.rewards import ScoringPlan
from verl_air.training.preflight import check_settings, check_sizes

NODES = {
    "grpo-qwen2.5_14b-1x8-fsdp2": 1,
    "gspo-qwen2.5_14b-1x8-fsdp2": 1,
    "grpo-qwen2.5_14b-2x8-megatron": 2,
    "grpo-qwen2.5_14b-8x8-megatron": 8,
    "grpo-qwen3_30b_a3b-3x8-megatron": 3,
}
each_recipe = pytest.mark.parametrize("name", NODES)


def check(config: DictConfig) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an off-policy update would warn
        check_settings(config)
    check_sizes(config, find_shapes(str(config.actor_rollout_ref.model.path)))
    ScoringPlan(**OmegaConf.to_container(config.reward.custom_reward_function.reward_kwargs))


def test_every_recipe_of_the_folder_is_listed_here() -> None:
    assert set(NODES) == {path.stem for path in RECIPES.glob("*x8-*.yaml")}


@each_recipe
def test_the_papers_settings(name: str) -> None:
    config = composed(name)
    role = config.actor_rollout_ref
    assert (role.rollout.n, role.actor.optim.lr, config.air.coef) == (3, 5e-7, 8e-4)
    assert {path.split("/")[-2] for path in config.data.train_files} == {"safety", "moral", "math"}
    assert (config.air.anchors_per_intent, config.air.open_per_intent) == (1, 3)
    assert config.trainer.total_training_steps == 3000
    assert config.algorithm.adv_estimator == "grpo"


@each_recipe
def test_our_checks_accept_it(name: str) -> None:
    check(composed(name))


def test_our_checks_accept_the_example_of_the_readme(mine: Path) -> None:
    config = read_recipe(mine)
    check(config)
    assert plan_memory(config, 79 * GIB).faults == ()


@each_recipe
def test_verls_own_checks_accept_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """validate_config of main_ppo, and every dataclass that the workers make of the recipe, but for the model's."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = composed(name)
    monkeypatch.setattr("verl_air.training.preflight.check_recipe", lambda config: None)  # data and model are not here
    validate_config(config, need_reference_policy(config), need_critic(config))
    actor = config.actor_rollout_ref.actor
    assert omega_conf_to_dataclass(actor).engine.strategy == actor.strategy
    for section in ("actor_rollout_ref.rollout", "algorithm", "reward.reward_model.rollout"):
        omega_conf_to_dataclass(OmegaConf.select(config, section))


@each_recipe
def test_it_fits_and_its_header_says_what_the_plan_says(name: str) -> None:
    plan = plan_memory(composed(name), 79 * GIB)
    assert plan.faults == ()
    assert plan.notes == ()
    header = (RECIPES / f"{name}.yaml").read_text().split("\ndefaults:")[0]
    update = plan.phases[0].bytes / GIB
    (stated,) = re.findall(r"(\d+) GiB in an update", header)
    assert int(stated) == round(update)
    assert f"verl-air doctor {name}" in header


@each_recipe
def test_its_pools_fill_the_nodes_that_its_name_promises(name: str) -> None:
    pools = pools_of(composed(name))
    nodes = {f"node{i}": 8 for i in range(NODES[name])}
    assert shortfall(pools, nodes) is None
    assert sum(pool.nodes * pool.gpus for pool in pools) == 8 * NODES[name]
    nodes.popitem()
    assert "that the" in (shortfall(pools, nodes) or "")


def test_gspo_passes_with_context_parallelism_and_padded_sequences_do_not() -> None:
    actor = "actor_rollout_ref.actor"
    gspo = [f"{actor}.policy_loss.loss_mode=gspo", f"{actor}.loss_agg_mode=seq-mean-token-mean"]
    config = edited(composed("grpo-qwen2.5_14b-8x8-megatron"), *gspo)
    assert config.actor_rollout_ref.actor.megatron.context_parallel_size == 2
    assert check_settings(config) is not None
    padded = "actor_rollout_ref.model.use_remove_padding=False"
    with pytest.raises(ConfigError, match=r"use_remove_padding=False is refused by verl's Megatron engine"):
        check_settings(edited(config, padded))
