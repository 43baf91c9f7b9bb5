"""The gradient of a step is that of the definition, however verl cuts the work up: real engines and workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engines.batch import Batch, make_batch, random_batch
from tests.engines.conftest import Train
from tests.engines.definition import Definition, Gradients, assert_close
from tests.engines.training import AIR

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected(definition: Definition, batch: Batch) -> Gradients:
    return definition.step_gradients(batch)


def gradient(train_on: Train, batch: Batch, **settings: Any) -> Gradients:
    return train_on(batch, **settings)[0].gradients[0]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_and_ranks(
    train_on: Train, batch: Batch, expected: Gradients, world: int, micro_batch: int
) -> None:
    assert_close(gradient(train_on, batch, world=world, micro_batch=micro_batch), expected)


@pytest.mark.parametrize("world", [1, 2])
def test_dynamic_batch_size(train_on: Train, batch: Batch, expected: Gradients, world: int) -> None:
    """Micro-batches of unequal numbers of rows, packed by tokens."""
    assert_close(gradient(train_on, batch, world=world, max_tokens=24), expected)


def test_the_order_of_rows(train_on: Train, batch: Batch, expected: Gradients) -> None:
    """verl balances a batch by length, which tears meta-groups apart over ranks and micro-batches."""
    assert_close(gradient(train_on, batch.shuffled(seed=3), world=2), expected)


def test_padding_rows_change_nothing(train_on: Train, definition: Definition) -> None:
    whole = definition.off_policy(random_batch(prompts=3))
    padded = whole.with_padding(4).take([12, 0, 1, 2, 3, 13, 4, 5, 6, 7, 14, 8, 9, 10, 11, 15])
    assert_close(gradient(train_on, padded, world=2), definition.step_gradients(whole))


def test_masked_rows_take_no_part(train_on: Train, definition: Definition, batch: Batch) -> None:
    """Open rows, all completions of one open prompt among them, and an anchor: the rest is as if they were not."""
    out = [1, 3, 10, 11]
    kept = batch.take([row for row in range(len(batch)) if row not in out])
    found = gradient(train_on, batch.with_masked(out), world=2, micro_batch=4)
    assert_close(found, definition.step_gradients(kept))


def test_responses_of_one_token(train_on: Train, definition: Definition) -> None:
    rewards = np.random.default_rng(5).choice([-1.0, 1.25], size=(2, 4, 2))
    short = definition.off_policy(make_batch(rewards, seed=5, response_length=(1, 1)))
    assert_close(gradient(train_on, short), definition.step_gradients(short))


def test_importance_ratio(train_on: Train, definition: Definition) -> None:
    """Each token of the auxiliary term carries pi / pi_old; some of them are above the clip."""
    far = definition.off_policy(random_batch(), noise=0.5)
    air = AIR.model_copy(update={"importance": "ratio", "importance_clip": 1.3})
    expected = definition.step_gradients(far, max_ratio=1.3)
    assert_close(gradient(train_on, far, world=2, air=air), expected)
    with pytest.raises(AssertionError, match="gradient is off"):
        assert_close(gradient(train_on, far, world=2), expected)


def test_everything_at_once(train_on: Train, definition: Definition) -> None:
    whole = definition.off_policy(random_batch(prompts=3, seed=7)).with_masked([2, 9])
    found = gradient(train_on, whole.with_padding(4).shuffled(seed=7), world=2, max_tokens=30)
    assert_close(found, definition.step_gradients(whole))


@pytest.mark.parametrize(
    ("fault", "hidden", "caught"),
    [
        # (data-parallel ranks, rows of a micro-batch)
        ("per_micro_batch", (1, 16), (1, 4)),
        ("per_mini_batch_of_all_ranks", (1, 4), (2, 4)),
    ],
)
def test_a_wrong_normalisation_is_caught(
    train_on: Train, batch: Batch, expected: Gradients, fault: str, hidden: tuple[int, int], caught: tuple[int, int]
) -> None:
    """Each fault is invisible in one set-up, and so needs the others."""

    def check(world: int, micro_batch: int) -> None:
        assert_close(gradient(train_on, batch, loss=fault, world=world, micro_batch=micro_batch), expected)

    check(*hidden)
    with pytest.raises(AssertionError, match="the gradient is off by"):
        check(*caught)
