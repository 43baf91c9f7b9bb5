"""A faulty recipe is told before anything starts, in one line that names the key and the mend."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from verl_air.errors import ConfigError, DataError, RewardError
from verl_air.training.preflight import check_recipe


def test_the_quickstart_recipe_passes(compose) -> None:
    air = check_recipe(compose())
    assert air is not None
    assert air.active


def test_a_recipe_without_an_air_key_is_not_ours(compose) -> None:
    config = compose("~air", "trainer.v1.trainer_mode=sync")
    assert check_recipe(config) is None


FAULTS = {
    "unknown key": (["air.coeff=1"], r"air.coeff: unknown key \(did you mean 'coef'\?\)"),
    "unknown regularizer": (["air.regularizer=airr"], "air.regularizer: 'airr' is not registered .did you mean 'air'"),
    "air key without an air trainer": (
        ["trainer.v1.trainer_mode=sync"],
        "trainer_mode=sync ignores the recipe's `air:`",
    ),
    "air trainer without an air key": (["~air"], "trainer_mode=air_sync needs an `air:` key"),
    "legacy trainer": (["trainer.use_v1=False"], "trainer.use_v1=False selects verl's legacy trainer"),
    "batch of broken groups": (
        ["data.train_batch_size=30"],
        "train_batch_size=30 cannot hold whole meta-groups: a meta-group has 4 prompts .* Use a multiple, say 28",
    ),
    "batch above the data": (["data.train_batch_size=4800"], "takes 1200 intents per step, and .* hold only 120"),
    "one completion with loo": (["actor_rollout_ref.rollout.n=1"], "air.estimator=loo needs .*rollout.n >= 2, got 1"),
    "more open rows than there are": (["air.open_per_intent=7", "data.train_batch_size=48"], "intents are incomplete"),
    "missing parquet": (["data.train_files=[nowhere.parquet]"], "nowhere.parquet: no such file"),
    "missing validation parquet": (["data.val_files=[nowhere.parquet]"], "nowhere.parquet: no such file"),
    "missing model": (["actor_rollout_ref.model.path=runs/no/such"], "model.path=runs/no/such: no such model folder"),
    "missing judge": (["reward.reward_model.model_path=/no/such/m"], "model_path=/no/such/m: no such model folder"),
    "unknown module": (["reward.custom_reward_function.reward_kwargs.modules=[no_such_module]"], "no_such_module"),
    "a judge's route without a judge": (
        ["reward.reward_model.enable=false"],
        "'verdict_judge', to which playground/open/train is routed, asks a judge and there is none",
    ),
    "no reward function": (["reward.custom_reward_function.path=null"], "custom_reward_function.path is not set"),
    "legacy reward key": (
        ["custom_reward_function.path=mine.py"],
        "custom_reward_function.path: verl ignores this key at the top level; write reward.custom_reward_function.path",
    ),
    "GSPO on Megatron with context parallelism": (
        [
            "actor_rollout_ref.actor.strategy=megatron",
            "actor_rollout_ref.actor.megatron.context_parallel_size=2",
            "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean",
        ],
        "seq-mean-token-mean .* is rejected by verl's Megatron engine",
    ),
    "a micro-batch that does not divide": (
        ["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=50"],
        "ppo_micro_batch_size_per_gpu=50 does not divide the 144 trajectories that each of 1 data-parallel rank",
    ),
    "a sampler of one's own": (
        ["trainer.v1.sampler.custom_sampler.path=mine.py"],
        "AIR needs its own replay buffer",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_mend(compose, fault: str) -> None:
    overrides, message = FAULTS[fault]
    with pytest.raises((ConfigError, DataError), match=message):
        check_recipe(compose(*overrides))


def test_an_unknown_reward_is_named_with_the_nearest(compose) -> None:
    config = compose()
    config.reward.custom_reward_function.reward_kwargs.routes["playground/anchor"] = "multiple_choise"
    with pytest.raises(ConfigError, match=r"no reward named 'multiple_choise'.*multiple_choice"):
        check_recipe(config)


def test_rows_without_a_route_are_named(compose) -> None:
    config = compose()
    del config.reward.custom_reward_function.reward_kwargs.routes["playground/open"]
    with pytest.raises(RewardError, match=r"no route for data_source 'playground/id'.*role 'open'"):
        check_recipe(config)


@pytest.mark.parametrize("role", ["anchor", "open"])
def test_an_intent_that_lost_its_rows_is_named(compose, playground_files: Path, tmp_path: Path, role: str) -> None:
    table = pq.read_table(playground_files / "train.parquet")
    rows = table.to_pylist()
    victim = rows[0]["extra_info"]["intent_id"]
    keep = [row["extra_info"]["intent_id"] != victim or row["extra_info"]["role"] != role for row in rows]
    pq.write_table(table.filter(keep), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=rf"1 of 120 intents are incomplete[\s\S]*{re.escape(victim)}"):
        check_recipe(compose(f"data.train_files=[{tmp_path}/train.parquet]"))


@pytest.mark.parametrize(
    "override", ["actor_rollout_ref.actor.ppo_epochs=2", "actor_rollout_ref.actor.ppo_mini_batch_size=16"]
)
def test_off_policy_updates_without_importance_are_warned_of(compose, override: str) -> None:
    with pytest.warns(UserWarning, match="air.importance=ratio"):
        check_recipe(compose(override, "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=48"))


@pytest.mark.slow
def test_main_ppo_stops_before_ray_with_one_line(playground_files: Path) -> None:
    """The real command: status 2, our line on stderr, and no Ray cluster was started."""
    command = [sys.executable, "-W", "ignore", "-m", "verl.trainer.main_ppo", "--config-dir", "recipes"]
    command += ["--config-name", "quickstart", f"playground={playground_files}", "data.train_batch_size=30"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert run.returncode == 2
    assert "verl-air: data.train_batch_size=30 cannot hold whole meta-groups" in run.stderr
    assert "Traceback" not in run.stderr
    assert "Started a local Ray instance" not in run.stdout + run.stderr
