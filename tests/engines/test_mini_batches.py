"""Several optimizer steps from one batch: each has its share of the step's auxiliary loss, and the shares add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.engines.batch import Batch, random_batch
from tests.engines.conftest import Train
from tests.engines.definition import Definition, air_loss, assert_close, combine, ppo_loss
from tests.engines.training import AIR

pytestmark = pytest.mark.slow


def mini_batches(rows: int, size: int, world: int) -> list[list[int]]:
    """Rows of each mini-batch: every rank gives the next ones of its own share."""
    share, part = rows // world, size // world
    return [
        [rank * share + start + row for rank in range(world) for row in range(part)] for start in range(0, share, part)
    ]


@pytest.fixture(scope="module")
def batch(definition: Definition) -> Batch:
    return definition.off_policy(random_batch(prompts=3)).with_masked([5]).with_padding(4)


@pytest.mark.parametrize(("world", "size"), [(1, 4), (2, 8)])
def test_each_mini_batch_is_the_definition_on_its_rows(
    train_on: Train, definition: Definition, batch: Batch, world: int, size: int
) -> None:
    batch = batch.shuffled(seed=1)
    found = train_on(batch, world=world, mini_batch=size)[0].gradients
    parts = mini_batches(len(batch), size, world)
    assert len(found) == len(parts)
    for gradients, rows in zip(found, parts, strict=True):
        log_probs = definition.log_probs(batch)
        loss = ppo_loss(batch.take(rows), [log_probs[row] for row in rows])
        loss = loss + AIR.coef * air_loss(batch, log_probs, rows=rows)
        assert_close(gradients, definition.gradients(loss))


def test_mini_batches_add_up_to_the_step(train_on: Train, definition: Definition, batch: Batch) -> None:
    alone = replace(batch, advantage_N=np.zeros(len(batch)))  # the auxiliary term without the policy loss
    found = train_on(alone, world=2, mini_batch=4)[0].gradients
    assert len(found) == 4
    assert_close(combine([(1 / 4, gradients) for gradients in found]), definition.term_gradients(batch))


def test_a_mini_batch_without_a_valid_row_teaches_nothing(train_on: Train, definition: Definition) -> None:
    """Its token mean is 0 / 0: verl reports a loss of NaN, and the gradient must still be zero."""
    batch = definition.off_policy(random_batch()).with_masked([0, 1, 2, 3])
    first, *others = train_on(batch, mini_batch=4)[0].gradients
    assert all(not gradient.any() for gradient in first.values())
    assert all(gradient.isfinite().all() for found in others for gradient in found.values())
