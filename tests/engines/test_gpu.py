"""On a GPU the gradient is the definition's too. Skipped where there is none: verl's CUDA engine then cannot start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.engines.batch import Batch
from tests.engines.definition import Definition, Gradients, assert_close, combine, relative_error
from tests.engines.fsdp import Fsdp2
from tests.engines.ranks import Ranks
from tests.engines.training import AIR, Job, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU: verl's GPU engine cannot run here"),
]

BF16 = 0.05
"""Relative error allowed where forward and backward are in bfloat16, which has three decimal digits."""


@pytest.fixture(scope="module")
def gpu() -> Iterator[Ranks]:
    world = Ranks(1, platform="nvidia")
    yield world
    world.close()


def gradient(gpu: Ranks, definition: Definition, batch: Batch, loss: str, param_dtype: str) -> Gradients:
    job = Job(str(definition.path), batch, Fsdp2(param_dtype=param_dtype), loss=loss)
    return gpu.run(train, job)[0].gradients[0]


@pytest.mark.parametrize("loss", ["air", "stock"])
def test_float32_equals_the_definition(gpu: Ranks, definition: Definition, batch: Batch, loss: str) -> None:
    expected = definition.step_gradients(batch, coef=AIR.coef if loss == "air" else 0.0)
    assert_close(gradient(gpu, definition, batch, loss, "fp32"), expected)


def test_the_term_in_bfloat16_is_near_the_definition(gpu: Ranks, definition: Definition, batch: Batch) -> None:
    ours, stock = (gradient(gpu, definition, batch, loss, "bf16") for loss in ("air", "stock"))
    assert relative_error(combine([(1.0, ours), (-1.0, stock)]), definition.term_gradients(batch)) < BF16
