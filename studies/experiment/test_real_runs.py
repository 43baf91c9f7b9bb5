"""The driver with real runs: two of two steps, one after the other, then a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.experiment.driver import Experiment
from studies.experiment.plan import read_plan
from studies.experiment.report import write_report
from studies.experiment.runs import read_records
from studies.experiment.test_plan import write_plan
from tests.conftest import ROOT
from verl_air.playground.build import PlaygroundConfig
from verl_air.playground.model import WarmStartConfig

pytestmark = [pytest.mark.exhaustive, pytest.mark.slow, pytest.mark.verl_run, pytest.mark.timeout(1800)]

SETTINGS = [
    "reward.reward_model.enable=False",
    "reward.reward_model.enable_resource_pool=False",
    "+reward.custom_reward_function.reward_kwargs.judge.in_process=${playground}/model",
    "+reward.custom_reward_function.reward_kwargs.judge.min_mass=0.0",  # the judge is hardly trained
    "ray_kwargs.ray_init.num_gpus=1",
    "trainer.total_training_steps=2",
    "trainer.test_freq=1",
    "trainer.val_before_train=False",
    "trainer.save_freq=-1",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=24",
]


def test_two_runs_and_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sources = ["playground/id", "playground/ood"]
    plan = read_plan(
        write_plan(
            tmp_path / "study" / "plan.yaml",
            common=SETTINGS,
            measure={"steps": [1, 2], "sources": sources},
            methods={
                "vrex": {
                    "title": "GRPO + V-REx",
                    "set": ["++air.regularizer=vrex"],
                    "expect": {"air.regularizer": "vrex"},
                },
                "again": {"title": "GRPO + V-REx, again", "repeats": "vrex"},
            },
            studies=[{"name": "s", "question": "?", "methods": ["vrex", "again"], "seeds": [1], "against": "vrex"}],
        )
    )
    said: list[str] = []
    world = PlaygroundConfig(train=16, held_out=6, warm_start=WarmStartConfig(steps=20))
    experiment = Experiment(plan, tmp_path / "out", say=said.append, playground=world)
    assert experiment.run() == 0, "\n".join(said)
    for by_seed in experiment.records(plan.study("s")).values():
        assert by_seed[1]["attempts"] == 1
        assert by_seed[1]["resolved"]["air"]["regularizer"] == "vrex"
        assert set(by_seed[1]["curves"]["playground/id"]["acc"]) == {"1", "2"}
        assert by_seed[1]["training"]["air/open_reward/mean"].keys() == {"1", "2"}

    said.clear()
    assert experiment.run() == 0
    assert not [line for line in said if "attempt" in line], "a finished run was repeated"

    write_report(experiment)
    assert set(read_records(tmp_path / "study" / "records.jsonl")) == {("vrex", 1), ("again", 1)}
    assert (tmp_path / "study" / "results.md").is_file()
