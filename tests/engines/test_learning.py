"""Where all completions of a prompt are wrong GRPO learns nothing; AIR pushes them down, and the right one rises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.engines.batch import Batch, make_batch
from tests.engines.definition import Definition
from tests.engines.fsdp import Fsdp2
from tests.engines.ranks import Ranks
from tests.engines.training import Job, train
from verl_air.config import AirConfig

pytestmark = pytest.mark.slow

RIGHT, WRONG = 60, (10, 11, 12, 13)


def all_wrong() -> Batch:
    """An anchor that is answered rightly four times and an open prompt that never is: no advantage anywhere."""
    rewards = np.array([[[1.25] * 4, [-1.0] * 4]])
    batch = make_batch(rewards, seed=2, response_length=(1, 1))
    answers = [RIGHT] * 4 + list(WRONG)
    return replace(batch, responses=[torch.tensor([answer]) for answer in answers], advantage_N=np.zeros(len(answers)))


def test_one_step_raises_the_right_answer_where_all_were_wrong(
    ranks: Callable[[int], Ranks], definition: Definition
) -> None:
    batch = all_wrong()
    with torch.no_grad():
        batch = batch.with_old_log_probs([row.float() for row in definition.log_probs(batch)])

    def answers_after(loss: str) -> torch.Tensor:
        job = Job(str(definition.path), batch, Fsdp2(), loss=loss, air=AirConfig(coef=0.05), learning_rate=1e-3)
        policy = Definition(definition.path)
        parameters = ranks(1).run(train, job)[0].parameters
        policy.model.load_state_dict({name: value.double() for name, value in parameters.items()})
        return answer_probabilities(policy, batch)

    before = answer_probabilities(definition, batch)
    torch.testing.assert_close(answers_after("stock"), before, rtol=0, atol=0)  # plain GRPO learns nothing
    after = answers_after("air")
    assert after[RIGHT] > before[RIGHT]
    assert (after[list(WRONG)] < before[list(WRONG)]).all()


def answer_probabilities(policy: Definition, batch: Batch) -> torch.Tensor:
    """Of every token, after the open prompt."""
    with torch.no_grad():
        logits: torch.Tensor = policy.model(batch.prompts[-1][None]).logits[0, -1]
    return logits.softmax(-1)
