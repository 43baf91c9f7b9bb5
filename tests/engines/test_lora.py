"""With LoRA adapters the gradient of a step is that of the definition, by the chain rule through the adapters."""

from __future__ import annotations

import pytest

from tests.engines.batch import Batch
from tests.engines.conftest import Train
from tests.engines.definition import Definition, assert_close

pytestmark = pytest.mark.slow

SCALE = 2.0  # lora_alpha / rank


@pytest.mark.parametrize("world", [1, 2])
def test_gradients_of_adapters(train_on: Train, definition: Definition, batch: Batch, world: int) -> None:
    """W = W0 + SCALE B A with B = 0 at the start, so that dL/dB = SCALE dL/dW A^T and dL/dA = 0."""
    found = train_on(batch, world=world, lora_rank=4)[0]
    whole = definition.step_gradients(batch)
    expected, gradients = {}, {}
    for name, gradient in found.gradients[0].items():
        layer, _, kind = name.removeprefix("base_model.model.").partition(".lora_")
        assert kind in ("A.default.weight", "B.default.weight"), "only adapters are trained"
        if kind.startswith("A"):
            assert gradient.abs().max() == 0
        else:
            lora_a = found.parameters[name.replace("lora_B", "lora_A")]
            gradients[layer], expected[layer] = gradient, SCALE * whole[f"{layer}.weight"] @ lora_a.double().T
    assert len(gradients) >= 7, "all linear layers of each block"
    assert_close(gradients, expected)
