"""AIR through ``main_ppo`` on verl's Megatron engine, two context-parallel ranks: train, save, resume, load."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.engines.megatron.engine import Megatron
from tests.runs.launch import Run
from tests.runs.megatron.expect import (
    assert_moved,
    assert_synced,
    checkpoint,
    is_what_a_step_started_from,
    largest_difference,
    load,
)
from tests.runs.megatron.launch import megatron_main_ppo

pytestmark = [pytest.mark.exhaustive, pytest.mark.slow, pytest.mark.verl_run, pytest.mark.timeout(2400)]

CP2 = Megatron(cp=2)
STEPS = ("trainer.total_training_steps=3", "trainer.save_freq=2")


@pytest.fixture(scope="module")
def run(playground: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three steps without a break; checkpoints of the second and the last."""
    return megatron_main_ppo(tmp_path_factory.mktemp("cp2"), playground, CP2, *STEPS)


@pytest.fixture(scope="module")
def resumed(run: Run, playground: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The third step again, in new processes, from the checkpoint of the second."""
    return megatron_main_ppo(
        tmp_path_factory.mktemp("cp2_resumed"),
        playground,
        CP2,
        *STEPS,
        "trainer.resume_mode=resume_path",
        f"trainer.resume_from_path={run.folder / 'checkpoints' / 'global_step_2'}",
    )


def test_both_losses_reach_the_actor(run: Run) -> None:
    for step, metrics in run.metrics().items():
        for name in ("actor/air_loss", "actor/pg_loss", "actor/grad_norm"):
            assert math.isfinite(metrics[name]), (step, name)
            assert metrics[name] != 0.0, (step, name)
        assert metrics["air/groups/complete"] == 2


def test_weights_are_those_of_the_driver(run: Run) -> None:
    """``loo`` weights on every open row that differs from its anchors; none on anchors."""
    rows = [row for step in (1, 2, 3) for row in run.rollouts(step)]
    assert all(row["air_weight"] == 0.0 for row in rows if row["role"] == "anchor")
    assert any(row["air_weight"] != 0.0 for row in rows if row["role"] == "open")


def test_vllm_has_the_weights_of_every_step(run: Run, resumed: Run) -> None:
    assert_synced(run)
    assert_synced(resumed)


def test_the_hugging_face_folder_holds_the_trained_weights(run: Run, playground: Path) -> None:
    assert is_what_a_step_started_from(checkpoint(run, 2), run, step=3)
    for other in (playground / "model", checkpoint(run, 3)):
        assert not is_what_a_step_started_from(other, run, step=3)


def test_training_moved_every_tensor(run: Run, playground: Path) -> None:
    assert_moved(playground / "model", checkpoint(run, 3))


def test_a_resumed_run_sees_the_same_prompts_and_completions(run: Run, resumed: Run) -> None:
    assert sorted(resumed.metrics()) == [3]
    assert resumed.prompts(3) == run.prompts(3)
    assert run.prompts(3) != run.prompts(2)
    one, other = (
        sorted((row["input"], row["output"], row["score"]) for row in which.rollouts(3)) for which in (run, resumed)
    )
    assert one == other


def test_a_resumed_run_reaches_the_same_weights_and_metrics(run: Run, resumed: Run) -> None:
    """Up to the order of a sum: verl puts a batch's rows in the order in which their rollouts ended."""
    for name in ("actor/pg_loss", "actor/air_loss", "actor/grad_norm", "actor/entropy", "actor/lr", "air/gap/mean"):
        assert resumed.metrics()[3][name] == pytest.approx(run.metrics()[3][name], rel=1e-4, abs=1e-6), name
    apart = largest_difference(load(checkpoint(resumed, 3)), load(checkpoint(run, 3)))
    assert max(apart.values()) < 1e-6, apart  # the step itself moves weights by some 3e-4
