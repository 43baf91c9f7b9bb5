"""The gradient of a step is that of the definition, however verl cuts the work up: real engines and workers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.engines.batch import Batch, make_batch, random_batch
from tests.engines.definition import Definition, Gradients, air_loss, assert_close, ppo_loss
from tests.engines.fsdp import Fsdp2
from tests.engines.ranks import Ranks
from tests.engines.training import AIR, Job, train
from verl_air.config import AirConfig

pytestmark = pytest.mark.slow

World = Callable[[int], Ranks]


@pytest.fixture(scope="module")
def batch(definition: Definition) -> Batch:
    return definition.off_policy(random_batch())


@pytest.fixture(scope="module")
def expected(definition: Definition, batch: Batch) -> Gradients:
    return whole_gradient(definition, batch)


def whole_gradient(definition: Definition, batch: Batch, max_ratio: float | None = None) -> Gradients:
    log_probs = definition.log_probs(batch)
    return definition.gradients(ppo_loss(batch, log_probs) + AIR.coef * air_loss(batch, log_probs, max_ratio=max_ratio))


def gradient(
    ranks: World,
    definition: Definition,
    batch: Batch,
    *,
    world: int = 1,
    micro_batch: int = 2,
    max_tokens: int | None = None,
    air: AirConfig = AIR,
) -> Gradients:
    job = Job(str(definition.path), batch, Fsdp2(), air=air, micro_batch=micro_batch, max_tokens=max_tokens)
    return ranks(world).run(train, job)[0].gradients[0]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_and_ranks(
    ranks: World, definition: Definition, batch: Batch, expected: Gradients, world: int, micro_batch: int
) -> None:
    assert_close(gradient(ranks, definition, batch, world=world, micro_batch=micro_batch), expected)


@pytest.mark.parametrize("world", [1, 2])
def test_dynamic_batch_size(
    ranks: World, definition: Definition, batch: Batch, expected: Gradients, world: int
) -> None:
    """Micro-batches of unequal numbers of rows, packed by tokens."""
    assert_close(gradient(ranks, definition, batch, world=world, max_tokens=24), expected)


def test_the_order_of_rows(ranks: World, definition: Definition, batch: Batch, expected: Gradients) -> None:
    """verl balances a batch by length, which tears meta-groups apart over ranks and micro-batches."""
    shuffled = batch.take([int(row) for row in np.random.default_rng(3).permutation(len(batch))])
    assert_close(gradient(ranks, definition, shuffled, world=2), expected)


def test_padding_rows_change_nothing(ranks: World, definition: Definition) -> None:
    whole = definition.off_policy(random_batch(prompts=3))
    padded = whole.with_padding(4).take([12, 0, 1, 2, 3, 13, 4, 5, 6, 7, 14, 8, 9, 10, 11, 15])
    assert_close(gradient(ranks, definition, padded, world=2), whole_gradient(definition, whole))


def test_masked_rows_take_no_part(ranks: World, definition: Definition, batch: Batch) -> None:
    """Open rows, all completions of one open prompt among them, and an anchor: the rest is as if they were not."""
    out = [1, 3, 10, 11]
    kept = batch.take([row for row in range(len(batch)) if row not in out])
    found = gradient(ranks, definition, batch.with_masked(out), world=2, micro_batch=4)
    assert_close(found, whole_gradient(definition, kept))


def test_responses_of_one_token(ranks: World, definition: Definition) -> None:
    rewards = np.random.default_rng(5).choice([-1.0, 1.25], size=(2, 4, 2))
    short = definition.off_policy(make_batch(rewards, seed=5, response_length=(1, 1)))
    assert_close(gradient(ranks, definition, short), whole_gradient(definition, short))


def test_importance_ratio(ranks: World, definition: Definition) -> None:
    """Each token of the auxiliary term carries pi / pi_old; some of them are above the clip."""
    far = definition.off_policy(random_batch(), noise=0.5)
    air = AirConfig(coef=AIR.coef, estimator="paper", importance="ratio", importance_clip=1.3)
    expected = whole_gradient(definition, far, max_ratio=1.3)
    assert_close(gradient(ranks, definition, far, world=2, air=air), expected)
    with pytest.raises(AssertionError, match="gradient is off"):
        assert_close(gradient(ranks, definition, far, world=2), expected)


def test_everything_at_once(ranks: World, definition: Definition) -> None:
    whole = definition.off_policy(random_batch(prompts=3, seed=7)).with_masked([2, 9])
    rows = [int(row) for row in np.random.default_rng(7).permutation(16)]
    found = gradient(ranks, definition, whole.with_padding(4).take(rows), world=2, max_tokens=30)
    assert_close(found, whole_gradient(definition, whole))
