"""``air.old_log_probs=reuse`` gives the gradient that verl's forward pass before the update gives."""

from __future__ import annotations

import pytest

from tests.engines.batch import random_batch
from tests.engines.conftest import Train
from tests.engines.definition import Definition, assert_close, relative_error
from tests.engines.fsdp import Fsdp2
from tests.engines.megatron.engine import Megatron
from verl_air.config import AirConfig

pytestmark = pytest.mark.slow

AIR = AirConfig(coef=0.05, estimator="paper", importance="ratio")

BACKENDS = {
    "fsdp2": ("train_on", 1, Fsdp2()),
    "fsdp2-dp2": ("train_on", 2, Fsdp2()),
    "megatron-dp2": ("train_megatron_on", 2, Megatron()),
    "megatron-tp2": ("train_megatron_on", 2, Megatron(tp=2)),
    "megatron-pp2": ("train_megatron_on", 2, Megatron(pp=2)),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_recomputed_log_probs(
    request: pytest.FixtureRequest, definition: Definition, backend: str
) -> None:
    """With verl's rollout correction, weights and rejection, in both terms; rows masked and padded."""
    fixture, world, engine = BACKENDS[backend]
    train: Train = request.getfixturevalue(fixture)
    batch = definition.off_policy(random_batch(prompts=3).with_masked([4])).with_padding(4)
    outcomes = {loss: train(batch, engine, world=world, loss=loss, air=AIR) for loss in ("recomputed", "reused", "air")}
    recomputed, reused, uncorrected = (found[0] for found in outcomes.values())
    assert_close(reused.gradients[0], recomputed.gradients[0])
    assert relative_error(uncorrected.gradients[0], recomputed.gradients[0]) > 0.05, "the correction changes nothing"
    # The last pipeline stage has them.
    verls, own, _ = (next(rank.metrics[0] for rank in found if rank.metrics) for found in outcomes.values())
    assert own["air_loss"] == pytest.approx(verls["air_loss"], rel=1e-5)
    assert own["actor/pg_loss"] == pytest.approx(verls["actor/pg_loss"], rel=1e-5)
    for name in ("rollout_corr/rollout_is_mean", "rollout_corr/kl", "training/rollout_probs_diff_mean"):
        assert name in own
        assert name not in verls  # there the driver computes them


def test_without_ours_it_is_verls_loss(train_on: Train, definition: Definition) -> None:
    batch = definition.off_policy(random_batch())
    plain = AirConfig(coef=0.0)
    recomputed, reused = (train_on(batch, loss=loss, air=plain)[0] for loss in ("recomputed", "reused"))
    assert_close(reused.gradients[0], recomputed.gradients[0])
