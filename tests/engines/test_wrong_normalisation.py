"""The suite catches a wrong normalisation. Each fault is invisible in one set-up, and so needs the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engines.batch import random_batch
from tests.engines.definition import Definition, air_loss, assert_close, ppo_loss
from tests.engines.fsdp import Fsdp2
from tests.engines.ranks import Ranks
from tests.engines.training import AIR, Job, train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("fault", "hidden", "caught"),
    [
        # (data-parallel ranks, rows of a micro-batch)
        ("per_micro_batch", (1, 16), (1, 4)),
        ("per_mini_batch_of_all_ranks", (1, 4), (2, 4)),
    ],
)
def test_a_fault_is_caught(
    ranks: Callable[[int], Ranks],
    definition: Definition,
    fault: str,
    hidden: tuple[int, int],
    caught: tuple[int, int],
) -> None:
    batch = definition.off_policy(random_batch())
    log_probs = definition.log_probs(batch)
    expected = definition.gradients(ppo_loss(batch, log_probs) + AIR.coef * air_loss(batch, log_probs))

    def check(world: int, micro_batch: int) -> None:
        job = Job(str(definition.path), batch, Fsdp2(), loss=fault, micro_batch=micro_batch)
        assert_close(ranks(world).run(train, job)[0].gradients[0], expected)

    check(*hidden)
    with pytest.raises(AssertionError, match="the gradient is off by"):
        check(*caught)
