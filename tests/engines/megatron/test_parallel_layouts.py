"""verl's Megatron engine gives our loss the gradient that its FSDP2 engine gives it, under every parallel layout.

Both are also compared with the definition: engines could agree with each other and be wrong together.
"""

from __future__ import annotations

import pytest

from tests.engines.batch import Batch, random_batch
from tests.engines.conftest import Train
from tests.engines.definition import Definition, Gradients, assert_close, relative_error
from tests.engines.fsdp import Fsdp2
from tests.engines.megatron import nvidia_bridge
from tests.engines.megatron.engine import Megatron
from tests.engines.training import Outcome

pytestmark = pytest.mark.slow

ROWS = 16
MICRO_BATCH = 2


@pytest.fixture(scope="module")
def batch(definition: Definition) -> Batch:
    return definition.off_policy(random_batch(prompts=3).with_masked([4])).with_padding(4)


@pytest.fixture(scope="module")
def references(train_on: Train, definition: Definition, batch: Batch) -> list[Gradients]:
    """FSDP2's gradient, and the definition's."""
    return [train_on(batch, world=2, micro_batch=MICRO_BATCH)[0].gradients[0], definition.step_gradients(batch)]


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
NVIDIA_BRIDGE = {
    "bridge-tp2": Megatron(tp=2, nvidia_bridge=True),
    "bridge-pp2": Megatron(pp=2, nvidia_bridge=True),
    "bridge-cp2": Megatron(cp=2, nvidia_bridge=True),
}
EXHAUSTIVE = pytest.mark.exhaustive
BRIDGE = pytest.mark.skipif(not nvidia_bridge.is_there(), reason="megatron-bridge is not installed (docs/megatron.md)")


@pytest.mark.parametrize(
    ("world", "layout"),
    [
        *(pytest.param(2, layout, id=name) for name, layout in TWO_RANKS.items()),
        *(pytest.param(4, layout, id=name, marks=EXHAUSTIVE) for name, layout in FOUR_RANKS.items()),
        *(pytest.param(2, layout, id=name, marks=[EXHAUSTIVE, BRIDGE]) for name, layout in NVIDIA_BRIDGE.items()),
    ],
)
def test_a_layouts_gradient(
    train_megatron_on: Train, batch: Batch, references: list[Gradients], world: int, layout: Megatron
) -> None:
    outcomes = train_megatron_on(batch, layout, world=world, micro_batch=MICRO_BATCH)
    for reference in references:
        assert_close(outcomes[0].gradients[0], reference)
    loss_is_called_on_the_last_stage_only(outcomes, layout)


@pytest.mark.exhaustive
def test_gspo_on_two_context_parallel_ranks(
    train_on: Train, train_megatron_on: Train, batch: Batch, references: list[Gradients]
) -> None:
    """GSPO's ratio and mean are those of whole sequences, of which each rank holds a part."""
    gspo = {"world": 2, "loss_mode": "gspo", "loss_agg_mode": "seq-mean-token-mean"}
    expected = train_on(batch, Fsdp2(), **gspo)[0].gradients[0]
    assert relative_error(expected, references[0]) > 0.1, "GSPO's gradient is GRPO's: nothing is shown"
    assert_close(train_megatron_on(batch, Megatron(cp=2), **gspo)[0].gradients[0], expected)
