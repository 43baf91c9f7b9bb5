"""LoRA in main_ppo: adapters are trained. This policy is too close to uniform to tell whether they reach vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runs.launch import KWARGS, NO_JUDGE, NO_VALIDATION, SMALL, main_ppo

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.exhaustive, pytest.mark.timeout(1500)]

LORA = (
    "actor_rollout_ref.model.lora_rank=8",
    "actor_rollout_ref.model.lora_alpha=16",
    "actor_rollout_ref.model.lora.merge=True",
    "actor_rollout_ref.actor.optim.lr=1e-2",
)
VARIED = (
    *NO_JUDGE,
    "++air.check_judge=False",  # on purpose
    f"{KWARGS}.modules=[verl_air.playground.rewards,tests.runs.faulty_rewards]",
    f"++{KWARGS}.routes={{playground/anchor:by_its_letters,playground/open:by_its_letters,"
    "playground/open/train:by_its_letters}",
)


def test_adapters_are_trained(playground_files: Path, tmp_path: Path) -> None:
    steps = ("trainer.total_training_steps=3", "trainer.save_freq=3")
    run = main_ppo(tmp_path, playground_files, *SMALL, *VARIED, *NO_VALIDATION, *LORA, *steps)
    metrics = run.metrics()
    for step in (1, 2, 3):
        run.assert_whole_groups(step)
        assert metrics[step]["actor/grad_norm"] > 0
    assert any(row["air_weight"] != 0 for step in (1, 2, 3) for row in run.rollouts(step))
    weights = torch.load(tmp_path / "checkpoints/global_step_3/actor/model_world_size_1_rank_0.pt", weights_only=False)
    learned = [weight.to_local().abs().max() for name, weight in weights.items() if "lora_B" in name]
    assert learned
    assert min(learned) > 1e-3, "zero before training"
