"""LoRA in main_ppo: adapters are trained, and vLLM samples from the weights that they make.

With adapters disabled the actor is the reference policy, which is the yardstick: what vLLM samples is far from it and
close to the actor. A rollout that had not received the adapters would be the reference itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.runs.launch import KWARGS, NO_JUDGE, NO_VALIDATION, SMALL, main_ppo

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.exhaustive, pytest.mark.timeout(1500)]

LORA = (
    "actor_rollout_ref.model.lora_rank=8",
    "actor_rollout_ref.model.lora_alpha=16",
    "actor_rollout_ref.model.lora.merge=True",
    "actor_rollout_ref.actor.optim.lr=3e-2",
)
COMPARED = (
    "actor_rollout_ref.actor.use_kl_loss=True",
    "actor_rollout_ref.actor.kl_loss_type=k1",
    "actor_rollout_ref.actor.kl_loss_coef=0.0",  # measured, not trained on
)
VARIED = (
    *NO_JUDGE,
    "++air.check_judge=False",  # on purpose
    f"{KWARGS}.modules=[verl_air.playground.rewards,tests.runs.faulty_rewards]",
    f"++{KWARGS}.routes={{playground/anchor:by_its_letters,playground/open:by_its_letters,"
    "playground/open/train:by_its_letters}",
)


@pytest.fixture
def decided_model(playground_files: Path, tmp_path: Path) -> Path:
    """The untrained policy with ten times its logits: so near to uniform as it is, any weights sample alike."""
    folder = shutil.copytree(playground_files / "model", tmp_path / "decided")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.mul_(10.0)
    model.save_pretrained(folder)
    return folder


def test_trained_adapters_reach_the_rollout(playground_files: Path, decided_model: Path, tmp_path: Path) -> None:
    settings = (
        f"actor_rollout_ref.model.path={decided_model}",
        "trainer.total_training_steps=3",
        "trainer.save_freq=3",
    )
    run = main_ppo(tmp_path / "run", playground_files, *SMALL, *VARIED, *NO_VALIDATION, *LORA, *COMPARED, *settings)
    metrics = run.metrics()
    for step in (1, 2, 3):
        run.assert_whole_groups(step)
        assert metrics[step]["actor/grad_norm"] > 0
    assert any(row["air_weight"] != 0 for step in (1, 2, 3) for row in run.rollouts(step))
    weights = torch.load(
        run.folder / "checkpoints/global_step_3/actor/model_world_size_1_rank_0.pt", weights_only=False
    )
    learned = [weight.to_local().abs().max() for name, weight in weights.items() if "lora_B" in name]
    assert learned
    assert min(learned) > 1e-3, "zero before training"

    # In nats per token, over what vLLM sampled before the step's update.
    actor_to_reference = {step: metrics[step]["actor/kl_loss"] for step in (1, 2, 3)}
    rollout_to_actor = {step: metrics[step]["rollout_corr/kl"] for step in (1, 2, 3)}
    assert abs(actor_to_reference[1]) < 1e-6, "adapters begin as nothing"
    for step in (2, 3):
        rollout_to_reference = rollout_to_actor[step] + actor_to_reference[step]
        assert rollout_to_reference > 0.1
        assert metrics[step]["rollout_corr/k3_kl"] < rollout_to_reference / 10  # verl sends merged weights as bf16
