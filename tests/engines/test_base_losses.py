"""Whatever the base loss, ours is that loss, untouched, plus the auxiliary term; without the term it is verl's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.engines.batch import Batch, make_batch
from tests.engines.conftest import Train
from tests.engines.definition import Definition, air_loss, assert_close, combine, relative_error
from tests.engines.training import AIR
from verl_air.config import AirConfig

pytestmark = pytest.mark.slow


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
    train_on: Train, definition: Definition, batch: Batch, loss_mode: str, loss_agg_mode: str
) -> None:
    modes = {"loss_mode": loss_mode, "loss_agg_mode": loss_agg_mode}
    ours, stock = (train_on(batch, world=2, loss=loss, **modes)[0] for loss in ("air", "stock"))
    term = definition.term_gradients(batch)
    assert relative_error(stock.gradients[0], term) > 0.1, "the base loss has no gradient of its own: nothing is shown"
    assert_close(combine([(1.0, ours.gradients[0]), (-1.0, stock.gradients[0])]), term)
    assert ours.metrics[0]["actor/pg_loss"] == stock.metrics[0]["actor/pg_loss"]


@pytest.mark.parametrize("world", [1, 2])
def test_the_term_is_reported_whole(train_on: Train, definition: Definition, batch: Batch, world: int) -> None:
    """``air_loss`` is J_aux of the mini-batch, summed over micro-batches and averaged over ranks."""
    expected = float(air_loss(batch, definition.log_probs(batch)))
    assert train_on(batch, world=world)[0].metrics[0]["air_loss"] == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize("air", [AirConfig(coef=0.0), AirConfig(coef=0.05, regularizer="none")], ids=["coef", "none"])
def test_without_the_term_parameters_stay_bit_identical(
    train_on: Train, definition: Definition, batch: Batch, air: AirConfig
) -> None:
    def after(loss: str, air: AirConfig) -> dict[str, torch.Tensor]:
        return train_on(batch, loss=loss, air=air, mini_batch=8, steps=3, learning_rate=1e-2)[0].parameters

    stock, ours, with_term = after("stock", air), after("air", air), after("air", AIR)
    start = dict(definition.model.named_parameters())
    for name, value in stock.items():
        assert torch.equal(ours[name], value), f"{name} differs after six optimizer steps"
    assert any(not torch.equal(stock[name].double(), start[name]) for name in stock), "nothing was learnt at all"
    assert any(not torch.equal(stock[name], with_term[name]) for name in stock), "the term makes no difference"


def test_one_step_raises_the_right_answer_where_all_were_wrong(train_on: Train, definition: Definition) -> None:
    """An anchor is answered rightly four times, its open prompt never: GRPO has no advantage and learns nothing."""
    right, wrong = 60, [10, 11, 12, 13]
    batch = make_batch(np.array([[[1.25] * 4, [-1.0] * 4]]), seed=2, response_length=(1, 1))
    answers = [torch.tensor([answer]) for answer in [right] * 4 + wrong]
    batch = definition.off_policy(replace(batch, responses=answers, advantage_N=np.zeros(len(answers))), noise=0.0)

    @torch.no_grad()
    def answer_probabilities(policy: Definition) -> torch.Tensor:
        """Of every token, after the open prompt."""
        return policy.model(batch.prompts[-1][None]).logits[0, -1].softmax(-1)

    def after(loss: str) -> torch.Tensor:
        (outcome,) = train_on(batch, loss=loss, air=AirConfig(coef=0.05), learning_rate=1e-3)
        policy = Definition(definition.path)
        policy.model.load_state_dict({name: value.double() for name, value in outcome.parameters.items()})
        return answer_probabilities(policy)

    before = answer_probabilities(definition)
    torch.testing.assert_close(after("stock"), before, rtol=0, atol=0)  # plain GRPO learns nothing
    with_term = after("air")
    assert with_term[right] > before[right]
    assert (with_term[wrong] < before[wrong]).all()
