"""Two runs on one machine at the same time: each rollout engine gets the weights of its own trainer, and both finish.

With verl's own names the second run takes the first one's socket away (``training/vllm_patches.py``).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.runs.launch import NO_VALIDATION, ORACLE, SMALL, Run, main_ppo

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.exhaustive, pytest.mark.timeout(1500)]

STEPS = 4
ACTOR = "actor_rollout_ref.actor"
SETTINGS = (
    *(*SMALL, *ORACLE, *NO_VALIDATION),
    f"trainer.total_training_steps={STEPS}",
    "trainer.save_freq=-1",
    f"{ACTOR}.optim.lr=1e-2",
    "ray_kwargs.ray_init.object_store_memory=200000000",
)


def test_two_runs_at_once(playground_files: Path, tmp_path: Path) -> None:
    def started(entropy_coeff: float) -> Run:
        folder = tmp_path / f"entropy{entropy_coeff}"
        return main_ppo(folder, playground_files, *SETTINGS, f"{ACTOR}.entropy_coeff={entropy_coeff}")

    with ThreadPoolExecutor(2) as at_once:
        spread, peaked = (run.metrics() for run in at_once.map(started, (0.5, -0.5)))
    assert list(spread) == list(peaked) == list(range(1, STEPS + 1))
    apart = spread[STEPS]["actor/entropy"] - peaked[STEPS]["actor/entropy"]
    assert apart > 0.1, "the policies are alike: one would do for the other"
    for metrics in (spread, peaked):
        assert max(data["training/rollout_probs_diff_max"] for data in metrics.values()) < 1e-4
