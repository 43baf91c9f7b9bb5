"""AIR through ``main_ppo`` on four ranks: tensor, sequence and pipeline parallelism, with a reference policy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.engines.megatron.engine import Megatron
from tests.runs.launch import Run
from tests.runs.megatron.expect import assert_moved, assert_synced, checkpoint, is_what_a_step_started_from
from tests.runs.megatron.launch import megatron_main_ppo

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.verl_run, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def run(playground: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return megatron_main_ppo(
        tmp_path_factory.mktemp("tp2pp2"),
        playground,
        Megatron(tp=2, pp=2, sequence_parallel=True),
        "trainer.total_training_steps=2",
        "trainer.save_freq=1",
        "actor_rollout_ref.actor.use_kl_loss=True",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=12",
    )


def test_all_losses_reach_the_actor(run: Run) -> None:
    assert sorted(run.metrics()) == [1, 2]
    for step, metrics in run.metrics().items():
        for name in ("actor/air_loss", "actor/pg_loss", "actor/grad_norm", "actor/kl_loss"):
            assert math.isfinite(metrics[name]), (step, name)
        assert metrics["actor/air_loss"] != 0.0
    assert run.metrics()[2]["actor/kl_loss"] > run.metrics()[1]["actor/kl_loss"]  # none before the first update


def test_vllm_has_the_weights_of_every_step(run: Run) -> None:
    assert_synced(run)


def test_the_hugging_face_folder_holds_the_trained_weights(run: Run, playground: Path) -> None:
    assert is_what_a_step_started_from(playground / "model", run, step=1)
    assert is_what_a_step_started_from(checkpoint(run, 1), run, step=2)
    assert not is_what_a_step_started_from(playground / "model", run, step=2)


def test_training_moved_every_tensor(run: Run, playground: Path) -> None:
    assert_moved(playground / "model", checkpoint(run, 2))
