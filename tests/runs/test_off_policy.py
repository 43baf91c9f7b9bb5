"""Real asynchronous runs with staleness forced: three batches of prompts are in flight before the first step.

A rollout is then zero steps old in step 1, one in step 2, and three in step 4. The ratio that the actor used is
checked against that, and the bias is measured with the checkpoints that the run went through: docs/estimators.md has a
table of more of it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs.launch import NO_VALIDATION, ORACLE, main_ppo
from tests.runs.staleness import bias_by_staleness
from tests.runs.test_async_modes import COLOCATE, SEPARATE
from verl_air.playground.build import build_playground

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.exhaustive, pytest.mark.timeout(1500)]

STEPS, AHEAD = 6, 3
CORRECTION = "algorithm.rollout_correction"
SETTINGS = (
    *ORACLE,
    *NO_VALIDATION,
    f"trainer.total_training_steps={STEPS}",
    "trainer.save_freq=1",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model]",
    "++air.best_metric=null",
    "++air.importance=ratio",
    f"{CORRECTION}.rollout_is=sequence",
    f"{CORRECTION}.rollout_is_threshold=5.0",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "data.train_batch_size=24",
    "actor_rollout_ref.actor.ppo_mini_batch_size=24",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=72",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=72",
)


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warm") / "playground"
    build_playground(folder)
    return folder


@pytest.mark.parametrize(
    ("mode", "section"), [(COLOCATE, "colocate_async"), (SEPARATE, "separate_async")], ids=["colocate", "separate"]
)
def test_the_ratio_follows_staleness(mode: tuple[str, ...], section: str, playground: Path, tmp_path: Path) -> None:
    ahead = f"trainer.v1.{section}.num_warmup_batches={AHEAD}"
    metrics = main_ppo(tmp_path, playground, *SETTINGS, *mode, ahead).metrics()
    stale = {step: data["training/off_policy/trajectory_staleness/mean"] for step, data in metrics.items()}
    effective = {step: data["actor/air_ratio/effective"] for step, data in metrics.items()}
    assert stale[1] == 0
    stalest = max(stale, key=lambda step: stale[step])
    assert stale[stalest] == AHEAD  # colocate_async catches up later, when rollouts outrun the steps
    assert effective[1] > 0.9999, "the first rollouts are the policy's own"
    assert effective[stalest] < 0.95, "the policy has moved since"
    bias = bias_by_staleness(tmp_path, STEPS, (AHEAD,), batches=8)
    assert bias[AHEAD]["none"].low > bias[0]["none"].low, "a bias that the control shows too, or lost in noise"
