"""The driver with real runs: two of two steps, one after the other, then a page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import RECIPES
from tests.experiments.test_plan import SHIPPED
from verl_air.experiments.driver import Experiment
from verl_air.experiments.plan import Measure, Study
from verl_air.experiments.report import write_report
from verl_air.playground.build import PlaygroundConfig
from verl_air.playground.model import WarmStartConfig

pytestmark = [pytest.mark.exhaustive, pytest.mark.slow, pytest.mark.verl_run, pytest.mark.timeout(1800)]

SMALL = (
    "trainer.total_training_steps=2",
    "trainer.test_freq=1",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=24",
)


def test_two_runs_and_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPES.parent)
    study = Study(
        name="smoke", question="Does it run?", methods=("grpo-lr-4e-4", "grpo-air"), seeds=(1,), against="grpo-air"
    )
    plan = replace(
        SHIPPED,
        common=(*SHIPPED.common, *SMALL),
        measure=Measure(
            steps=(1, 2), sources=SHIPPED.measure.sources, thresholds=dict.fromkeys(SHIPPED.measure.sources, 0.5)
        ),
        studies=(study,),
    )
    told: list[str] = []
    world = PlaygroundConfig(train=16, held_out=6, warm_start=WarmStartConfig(steps=20))
    experiment = Experiment(plan, tmp_path / "experiment", say=told.append, playground=world)
    assert experiment.run() == 0, "\n".join(told)
    records = experiment.records(study)
    for method in study.methods:
        record = records[method][1]
        assert record["attempts"] == 1
        curve = record["curves"]["playground/id"]
        assert set(curve["acc"]) == {"1", "2"}
        assert record["training"]["air/open_reward/mean"].keys() == {"1", "2"}

    told.clear()
    assert experiment.run() == 0
    assert not [line for line in told if "attempt" in line], "a finished run was repeated"

    write_report(experiment, tmp_path / "docs")
    results = json.loads((tmp_path / "docs" / "results.json").read_text())
    assert {run["method"] for run in results["runs"]} == set(study.methods)
    assert (tmp_path / "docs" / "results.md").is_file()
