"""verl's Megatron engine gives our loss the gradient that its FSDP2 engine gives it, under every parallel layout.

Both are also compared with the definition: engines could agree with each other and be wrong together.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engines.batch import Batch, random_batch
from tests.engines.definition import Definition, Gradients, air_loss, assert_close, ppo_loss, relative_error
from tests.engines.fsdp import Fsdp2
from tests.engines.megatron import nvidia_bridge
from tests.engines.megatron.engine import Megatron
from tests.engines.ranks import Ranks
from tests.engines.training import AIR, Job, Outcome, train

pytestmark = pytest.mark.slow

World = Callable[[int], Ranks]
ROWS = 16
MICRO_BATCH = 2


@pytest.fixture(scope="module")
def batch(definition: Definition) -> Batch:
    return definition.off_policy(random_batch(prompts=3).with_masked([4])).with_padding(4)


@pytest.fixture(scope="module")
def expected(definition: Definition, batch: Batch) -> Gradients:
    log_probs = definition.log_probs(batch)
    return definition.gradients(ppo_loss(batch, log_probs) + AIR.coef * air_loss(batch, log_probs))


@pytest.fixture(scope="module")
def fsdp2(ranks: World, definition: Definition, batch: Batch) -> Gradients:
    return ranks(2).run(train, Job(str(definition.path), batch, Fsdp2(), micro_batch=MICRO_BATCH))[0].gradients[0]


Check = Callable[[int, Megatron], None]


@pytest.fixture
def check(megatron_ranks: World, definition: Definition, batch: Batch, fsdp2: Gradients, expected: Gradients) -> Check:
    """On so many ranks, a layout's gradient is FSDP2's and the definition's."""

    def run(ranks: int, layout: Megatron) -> None:
        job = Job(str(definition.path), batch, layout, micro_batch=MICRO_BATCH)
        outcomes = megatron_ranks(ranks).run(train, job)
        for other in (fsdp2, expected):
            assert_close(outcomes[0].gradients[0], other)
        loss_is_called_on_the_last_stage_only(outcomes, layout)

    return run


def loss_is_called_on_the_last_stage_only(outcomes: list[Outcome], layout: Megatron) -> None:
    """Once a micro-batch there, on each tensor- and context-parallel rank, and nowhere else."""
    data_parallel = len(outcomes) // (layout.tp * layout.pp * layout.cp)
    micro_batches = ROWS // data_parallel // MICRO_BATCH
    calls = {tuple(outcome.place.items()): outcome.loss_calls for outcome in outcomes}
    assert len(calls) == len(outcomes)
    for outcome in outcomes:
        last = outcome.place["pp"] == layout.pp - 1
        assert outcome.loss_calls == (micro_batches if last else 0), calls
        assert outcome.place["chunks"] == (layout.vpp or 1)


TWO_RANKS = {
    "dp2": Megatron(),
    "tp2": Megatron(tp=2),
    "tp2-sequence": Megatron(tp=2, sequence_parallel=True),
    "pp2": Megatron(pp=2),
    "vpp2": Megatron(pp=2, vpp=2),
    "cp2": Megatron(cp=2),
}
FOUR_RANKS = {
    "tp2pp2": Megatron(tp=2, pp=2),
    "tp2pp2-sequence": Megatron(tp=2, pp=2, sequence_parallel=True),
    "dp2vpp2": Megatron(pp=2, vpp=2),
    "cp2tp2": Megatron(tp=2, cp=2),
    "cp2pp2": Megatron(pp=2, cp=2),
}


@pytest.mark.parametrize("layout", TWO_RANKS.values(), ids=TWO_RANKS)
def test_two_ranks(check: Check, layout: Megatron) -> None:
    check(2, layout)


@pytest.mark.exhaustive
@pytest.mark.parametrize("layout", FOUR_RANKS.values(), ids=FOUR_RANKS)
def test_four_ranks(check: Check, layout: Megatron) -> None:
    check(4, layout)


NVIDIA_BRIDGE = {
    "tp2": Megatron(tp=2, nvidia_bridge=True),
    "pp2": Megatron(pp=2, nvidia_bridge=True),
    "cp2": Megatron(cp=2, nvidia_bridge=True),
}


@pytest.mark.exhaustive
@pytest.mark.skipif(not nvidia_bridge.is_there(), reason="megatron-bridge is not installed (docs/megatron.md)")
@pytest.mark.parametrize("layout", NVIDIA_BRIDGE.values(), ids=NVIDIA_BRIDGE)
def test_two_ranks_with_the_nvidia_bridge(check: Check, layout: Megatron) -> None:
    check(2, layout)


@pytest.mark.exhaustive
def test_gspo_on_two_context_parallel_ranks(
    ranks: World, megatron_ranks: World, definition: Definition, batch: Batch, fsdp2: Gradients
) -> None:
    """GSPO's ratio and mean are those of whole sequences, of which each rank holds a part."""

    def gradients(world: World, backend: Fsdp2 | Megatron) -> Gradients:
        job = Job(str(definition.path), batch, backend, loss_mode="gspo", loss_agg_mode="seq-mean-token-mean")
        return world(2).run(train, job)[0].gradients[0]

    expected = gradients(ranks, Fsdp2())
    assert relative_error(expected, fsdp2) > 0.1, "GSPO's gradient is GRPO's: nothing is shown"
    assert_close(gradients(megatron_ranks, Megatron(cp=2)), expected)
