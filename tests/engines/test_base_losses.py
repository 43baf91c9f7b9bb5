"""Whatever the base loss, ours is that loss, untouched, plus the auxiliary term; without the term it is verl's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.engines.batch import Batch, random_batch
from tests.engines.definition import Definition, air_loss, assert_close, combine, relative_error
from tests.engines.fsdp import Fsdp2
from tests.engines.ranks import Ranks
from tests.engines.training import AIR, Job, train
from verl_air.config import AirConfig

pytestmark = pytest.mark.slow

World = Callable[[int], Ranks]


@pytest.fixture(scope="module")
def batch(definition: Definition) -> Batch:
    return definition.off_policy(random_batch())


@pytest.mark.parametrize(
    ("loss_mode", "loss_agg_mode"),
    [
        ("vanilla", "token-mean"),
        ("vanilla", "seq-mean-token-sum-norm"),
        ("gspo", "seq-mean-token-mean"),
        ("geo_mean", "token-mean"),
        ("cispo", "token-mean"),
    ],
)
def test_ours_is_the_base_loss_plus_the_term(
    ranks: World, definition: Definition, batch: Batch, loss_mode: str, loss_agg_mode: str
) -> None:
    def run(loss: str) -> Job:
        return Job(str(definition.path), batch, Fsdp2(), loss=loss, loss_mode=loss_mode, loss_agg_mode=loss_agg_mode)

    ours, stock = (ranks(2).run(train, run(loss))[0] for loss in ("air", "stock"))
    term = definition.gradients(AIR.coef * air_loss(batch, definition.log_probs(batch)))
    assert relative_error(stock.gradients[0], term) > 0.1, "the base loss has no gradient of its own: nothing is shown"
    assert_close(combine([(1.0, ours.gradients[0]), (-1.0, stock.gradients[0])]), term)
    assert ours.metrics[0]["actor/pg_loss"] == stock.metrics[0]["actor/pg_loss"]


def test_the_term_is_reported_whole(ranks: World, definition: Definition, batch: Batch) -> None:
    """``air_loss`` is J_aux of the mini-batch, summed over micro-batches and averaged over ranks."""
    expected = float(air_loss(batch, definition.log_probs(batch)))
    for world in (1, 2):
        metrics = ranks(world).run(train, Job(str(definition.path), batch, Fsdp2()))[0].metrics[0]
        assert metrics["air_loss"] == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize("air", [AirConfig(coef=0.0), AirConfig(coef=0.05, regularizer="none")], ids=["coef", "none"])
def test_without_the_term_parameters_stay_bit_identical(
    ranks: World, definition: Definition, batch: Batch, air: AirConfig
) -> None:
    def after(loss: str, air: AirConfig) -> dict[str, torch.Tensor]:
        job = Job(str(definition.path), batch, Fsdp2(), loss=loss, air=air, mini_batch=8, steps=3, learning_rate=1e-2)
        return ranks(1).run(train, job)[0].parameters

    stock, ours, with_term = after("stock", air), after("air", air), after("air", AIR)
    start = dict(definition.model.named_parameters())
    for name, value in stock.items():
        assert torch.equal(ours[name], value), f"{name} differs after six optimizer steps"
    assert any(not torch.equal(stock[name].double(), start[name]) for name in stock), "nothing was learnt at all"
    assert any(not torch.equal(stock[name], with_term[name]) for name in stock), "the term makes no difference"
