"""``air.old_log_probs=reuse`` in the loss and in the trainer, with verl's own functions as the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_rejection_mask
from verl.utils import tensordict_utils as tu
from verl.workers.config import ActorConfig

from verl_air.config import AirConfig
from verl_air.errors import ConfigError
from verl_air.training.actor_loss import air_actor_loss
from verl_air.training.log_probs import ReusesLogProbs, use_own_log_probs

CORRECTION = {"rollout_is": "sequence", "rollout_is_threshold": 1.5, "rollout_rs": "token_k1"}
CORRECTION["rollout_rs_threshold"] = "0.5_1.2"


def nested(*rows: list[float]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


@pytest.fixture
def data() -> TensorDict:
    """Prompts of two and one tokens; responses of one and three, the last token of which is masked."""
    columns = {
        "prompts": nested([5, 6], [5]),
        "responses": nested([7], [7, 8, 9]),
        "response_mask": nested([1], [1, 1, 0]),
        "rollout_log_probs": nested([-1.0], [-1.5, -1.0, -3.0]),
    }
    return TensorDict(columns, batch_size=2)


@pytest.fixture
def output() -> dict[str, torch.Tensor]:
    log_probs = nested([-9.0, -1.1, -9.0], [-1.2, -1.3, -1.4, -9.0]).requires_grad_()
    return {"log_probs": log_probs}


def test_the_batch_is_what_verl_would_have_prepared(data: TensorDict, output: dict[str, torch.Tensor]) -> None:
    own, metrics = use_own_log_probs(output, data, CORRECTION)
    padded = own.select("old_log_probs", "rollout_log_probs", "rollout_is_weights").to_padded_tensor()
    assert not own["old_log_probs"].requires_grad
    torch.testing.assert_close(padded["old_log_probs"], torch.tensor([[-1.1, 0, 0], [-1.2, -1.3, -1.4]]))
    weights, kept, expected = compute_rollout_correction_and_rejection_mask(
        padded["old_log_probs"],
        padded["rollout_log_probs"],
        data["response_mask"].to_padded_tensor(0),
        **CORRECTION,  # type: ignore[arg-type]
    )
    assert weights is not None
    torch.testing.assert_close(padded["rollout_is_weights"], weights.batch["rollout_is_weights"])
    assert own["response_mask"].to_padded_tensor(0).tolist() == kept.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert expected.items() <= metrics.items()
    assert metrics["training/rollout_probs_diff_max"] > 0
    assert "old_log_probs" not in data, "the caller's micro-batch is left alone"


def test_rows_that_are_all_masked_have_nothing_to_report(data: TensorDict, output: dict[str, torch.Tensor]) -> None:
    data["response_mask"] = nested([0], [0, 0, 0])
    own, metrics = use_own_log_probs(output, data, CORRECTION)
    assert metrics == {}
    assert "old_log_probs" in own


def test_the_losses_gradient_is_that_of_recomputed_log_probs(data: TensorDict, output: dict[str, torch.Tensor]) -> None:
    data["advantages"], data["air_weight"] = nested([0.7], [-0.4, -0.4, -0.4]), nested([2.0], [3.0, 3.0, 3.0])
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=3, global_batch_size=2)
    recomputed, _ = use_own_log_probs(output, data, CORRECTION)
    found = []
    for batch, correction in ((data, CORRECTION), (recomputed, None)):
        config = ActorConfig(strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=1)
        air = AirConfig(coef=0.5, importance="ratio")
        loss, metrics = air_actor_loss(config, output, batch, air=air, correction=correction)
        found.append(torch.autograd.grad(loss, output["log_probs"])[0].values())
        assert 0 < metrics["air_ratio/effective"] <= 1
    assert found[0].any()
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("rollout_weights", "old", "ratios"),
    [
        ([[0.5], [1.5, 1.5, 1.5]], [[-1.1], [-1.2, -1.3, -1.4]], [0.5, 1.5, 1.5]),
        (None, [[-1.1 + math.log(2.0)], [-1.2 - math.log(1.1), -1.3 - math.log(2.0), -1.4]], [0.5, 1.1, 1.3]),
    ],
    ids=["verl's weights", "the rollout's log-probs, in bypass mode"],
)
def test_both_terms_have_the_same_correction_and_its_distribution_is_logged(
    data: TensorDict, output: dict[str, torch.Tensor], rollout_weights: Any, old: Any, ratios: list[float]
) -> None:
    """The policy loss is clipped by verl at its own limits, ours at ``importance_clip``."""
    advantage, weight, coef = torch.tensor([0.7, -0.4, -0.4]), torch.tensor([2.0, 3.0, 3.0]), 0.5
    data["advantages"], data["air_weight"] = nested([0.7], [-0.4] * 3), nested([2.0], [3.0] * 3)
    data["old_log_probs"] = nested(*old)
    if rollout_weights:
        data["rollout_is_weights"] = nested(*rollout_weights)
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=3, global_batch_size=2)
    config = ActorConfig(
        strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=1, clip_ratio_low=0.9, clip_ratio_high=9.0
    )
    air = AirConfig(coef=coef, importance="ratio", importance_clip=1.3)
    loss, metrics = air_actor_loss(config, output, data, air=air)
    gradient = torch.autograd.grad(loss, output["log_probs"])[0].values()
    ratio = torch.tensor(ratios)
    policy_ratio = torch.tensor(ratios if rollout_weights else [0.5, 1.1, 2.0])
    torch.testing.assert_close(
        gradient[[1, 3, 4]], -(policy_ratio * advantage / 3 + coef * ratio * weight / 2), rtol=1e-5, atol=1e-6
    )
    found = {name.removeprefix("air_ratio/"): value for name, value in metrics.items() if "air_ratio" in name}
    expected = {"mean": ratio.mean(), "min": ratio.min(), "max": ratio.max()}
    expected |= {"effective": ratio.mean() ** 2 / (ratio**2).mean(), "clipped": 0 if rollout_weights else 1 / 3}
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5)


class Verls:
    """What a trainer of verl's does last."""

    def _compute_old_log_prob(self, batch: Any, metrics: dict) -> Any:
        raise AssertionError("log-probs are recomputed")

    def _update_actor(self, batch: Any, metrics: dict) -> Any:
        metrics.update({"actor/rollout_corr/kl": 0.1, "actor/entropy_loss": 2.0, "actor/loss": 3.0})
        return batch


class Trainer(ReusesLogProbs, Verls):  # type: ignore[misc]
    global_steps = 4

    def __init__(self, config: Any) -> None:
        self.config = config
        self.correction = self.leave_log_probs_to_update(config)


def test_the_trainer_skips_the_pass_and_keeps_verls_names(compose: Any) -> None:
    config = compose("algorithm.rollout_correction.rollout_is=token")
    trainer, batch, metrics = Trainer(config), [None] * 144, {}
    assert trainer.correction["rollout_is"] == "token"
    assert config.algorithm.rollout_correction.bypass_mode, "verl would correct before the update too"
    assert trainer._compute_old_log_prob(batch, metrics) is batch
    trainer._update_actor(batch, metrics)
    expected = {"rollout_corr/kl": 0.1, "actor/entropy": 2.0, "actor/entropy_loss": 2.0, "actor/loss": 3.0}
    assert metrics == expected
    with pytest.raises(
        ConfigError, match=r"step 4 has 288 rows for updates of 144: .* Set air.old_log_probs=recompute"
    ):
        trainer._update_actor([None] * 288, {})
