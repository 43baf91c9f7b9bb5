"""``air.consistency`` in verl's engines: a weight per token in the loss, and log-probs given other prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.engines.batch import Batch, random_batch
from tests.engines.conftest import Train
from tests.engines.definition import Definition, air_loss, assert_close, consistency_loss, ppo_loss
from tests.engines.fsdp import Fsdp2
from tests.engines.megatron.engine import Megatron
from tests.engines.ranks import Ranks
from tests.engines.training import AIR, Job, make_worker

pytestmark = pytest.mark.slow

BACKENDS = {
    "fsdp2": ("train_on", 1, Fsdp2()),
    "fsdp2-dp2": ("train_on", 2, Fsdp2()),
    "megatron-tp2": ("train_megatron_on", 2, Megatron(tp=2)),
    "megatron-pp2": ("train_megatron_on", 2, Megatron(pp=2)),
    "megatron-cp2": ("train_megatron_on", 2, Megatron(cp=2)),
}


@pytest.mark.parametrize("coef", [0.0, AIR.coef], ids=["alone", "on top of AIR"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_is_the_definitions(
    request: pytest.FixtureRequest, definition: Definition, backend: str, coef: float
) -> None:
    fixture, world, engine = BACKENDS[backend]
    train: Train = request.getfixturevalue(fixture)
    batch = definition.off_policy(random_batch(prompts=3).with_masked([4])).with_padding(4)
    outcomes = train(batch, engine, world=world, air=AIR.model_copy(update={"coef": coef, "consistency": 0.3}))
    log_probs = definition.log_probs(batch)
    loss = ppo_loss(batch, log_probs) + coef * air_loss(batch, log_probs) + 0.3 * consistency_loss(batch, log_probs)
    assert_close(outcomes[0].gradients[0], definition.gradients(loss))
    metrics = next(rank.metrics[0] for rank in outcomes if rank.metrics)
    if world == 1:  # otherwise a rank reports its share
        assert metrics["consistency_loss"] == pytest.approx([float(consistency_loss(batch, log_probs))], rel=1e-4)
    assert ("air_loss" in metrics) == bool(coef)


def log_probs_given(job: Job, prompts: list[torch.Tensor]) -> Any:
    """Runs on a rank: log-probs of the batch's responses after other prompts, as the trainer asks for them."""
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.padding import response_from_nested

    from verl_air.training.consistency import exchanged

    second = exchanged(prompts, job.batch.responses)
    asked = {"calculate_entropy": False, "compute_loss": False, "temperature": 1.0}
    tu.assign_non_tensor(second, micro_batch_size_per_gpu=job.micro_batch, **asked)
    output = make_worker(job).infer_batch(second)
    return response_from_nested(output["log_probs"], second["response_mask"]).unbind()


def test_a_batch_with_other_prompts_has_the_log_probs_of_its_responses_there(definition: Definition) -> None:
    batch: Batch = random_batch()
    prompts = [prompt.flip(0)[: 1 + row % 3] for row, prompt in enumerate(batch.prompts)]
    ranks = Ranks(1)
    try:
        (found,) = ranks.run(log_probs_given, Job(str(definition.path), batch, Fsdp2()), prompts)
    finally:
        ranks.close()
    batch.prompts[:] = prompts
    for row, expected in zip(found, definition.log_probs(batch), strict=True):
        torch.testing.assert_close(row.double(), expected.detach(), rtol=1e-4, atol=1e-5)
