"""Asynchronous training, killed in the middle of a step and resumed: whole meta-groups, nothing lost, nothing twice.

``separate_async`` has rollout engines of its own, which get the weights over gloo; ``colocate_async`` shares the
devices. Both keep one batch of prompts in flight: what is trained on was written by a policy one step older.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.runs.launch import NO_VALIDATION, ORACLE, SMALL, Run, main_ppo

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.exhaustive, pytest.mark.timeout(1500)]

STEPS = 4
COMMON = (
    *SMALL,
    *ORACLE,
    f"trainer.total_training_steps={STEPS}",
    *NO_VALIDATION,
    "trainer.save_freq=1",
    "trainer.resume_mode=auto",
)
COLOCATE = ("trainer.v1.trainer_mode=air_colocate_async",)
SEPARATE = (
    "trainer.v1.trainer_mode=air_separate_async",
    "trainer.v1.separate_async.parameter_sync_step=1",
    "actor_rollout_ref.hybrid_engine=False",
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.rollout.n_gpus_per_node=1",
    "actor_rollout_ref.rollout.checkpoint_engine.backend=gloo",
)


@pytest.mark.parametrize("mode", [SEPARATE, COLOCATE], ids=["separate", "colocate"])
def test_a_killed_run_goes_on_with_whole_groups(mode: tuple[str, ...], playground_files: Path, tmp_path: Path) -> None:
    killed = main_ppo(tmp_path, playground_files, *COMMON, *mode, kill_in_step=3)
    assert killed.status < 0, "the run ended before it could be killed"
    done = sorted(killed.metrics())
    assert done == [1, 2]
    assert not (tmp_path / "rollouts" / "3.jsonl").exists()
    check_steps(killed, done)

    resumed = main_ppo(tmp_path, playground_files, *COMMON, *mode)
    assert sorted(resumed.metrics())[-1] == STEPS
    check_steps(resumed, range(1, STEPS + 1))

    # An epoch visits each intent once: one that was in flight when the run was killed is neither lost nor doubled.
    seen = Counter(intent for step in range(1, STEPS + 1) for intent in {row[0] for row in resumed.prompts(step)})
    assert sum(seen.values()) == 2 * STEPS
    assert set(seen.values()) == {1}


def check_steps(run: Run, steps: Iterable[int]) -> None:
    for step in steps:
        run.assert_whole_groups(step)
        assert all(math.isfinite(row["air_weight"]) for row in run.rollouts(step))
