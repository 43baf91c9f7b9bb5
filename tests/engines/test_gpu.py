"""On a GPU the gradient is the definition's too. Skipped where there is none: verl's CUDA engine then cannot start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.engines.batch import random_batch
from tests.engines.definition import Definition, air_loss, assert_close, combine, ppo_loss, relative_error
from tests.engines.fsdp import Fsdp2
from tests.engines.ranks import Ranks
from tests.engines.training import AIR, Job, Outcome, train

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


def run(gpu: Ranks, definition: Definition, loss: str, param_dtype: str) -> Outcome:
    batch = definition.off_policy(random_batch())
    job = Job(str(definition.path), batch, Fsdp2(param_dtype=param_dtype), loss=loss)
    outcome: Outcome = gpu.run(train, job)[0]
    return outcome


@pytest.mark.parametrize("loss", ["air", "stock"])
def test_float32_equals_the_definition(gpu: Ranks, definition: Definition, loss: str) -> None:
    batch = definition.off_policy(random_batch())
    log_probs = definition.log_probs(batch)
    coef = AIR.coef if loss == "air" else 0.0
    expected = definition.gradients(ppo_loss(batch, log_probs) + coef * air_loss(batch, log_probs))
    found = run(gpu, definition, loss, "fp32").gradients[0]
    assert_close(found, expected)


def test_the_term_in_bfloat16_is_near_the_definition(gpu: Ranks, definition: Definition) -> None:
    batch = definition.off_policy(random_batch())
    term = definition.gradients(AIR.coef * air_loss(batch, definition.log_probs(batch)))
    ours, stock = (run(gpu, definition, loss, "bf16").gradients[0] for loss in ("air", "stock"))
    assert relative_error(combine([(1.0, ours), (-1.0, stock)]), term) < BF16
