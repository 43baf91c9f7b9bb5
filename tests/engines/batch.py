"""A step's batch of trajectories, as the driver holds it after rollout. Axis: N trajectories, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.engines.tiny_model import EOS, VOCABULARY
from verl_air.config import AirConfig
from verl_air.training.batch import REWARD_INFO, Trajectories, loss_weights


@dataclass(frozen=True)
class Batch:
    """Rows of a step.

    prompts, responses: token ids of each row.
    reward_N, advantage_N: of each trajectory.
    prompt_N, intent_N, is_anchor_N: ids and role.
    padding_N: synthetic rows that verl adds so that a batch divides evenly.
    masked_N: rows on which the reward function abstained.
    old_log_probs: of the response tokens, under the policy that the ratio is taken against.
    """

    prompts: list[Tensor]
    responses: list[Tensor]
    reward_N: np.ndarray
    advantage_N: np.ndarray
    prompt_N: np.ndarray
    intent_N: np.ndarray
    is_anchor_N: np.ndarray
    padding_N: np.ndarray
    masked_N: np.ndarray
    old_log_probs: list[Tensor]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def valid_N(self) -> np.ndarray:
        """Rows that take part in the loss."""
        return ~self.padding_N & ~self.masked_N

    def take(self, rows: Sequence[int]) -> Batch:
        """Some rows, in the order given."""
        chosen: dict[str, Any] = {
            name: [value[row] for row in rows] if isinstance(value, list) else value[list(rows)]
            for name, value in vars(self).items()
        }
        return Batch(**chosen)

    def shuffled(self, seed: int) -> Batch:
        return self.take([int(row) for row in np.random.default_rng(seed).permutation(len(self))])

    def with_padding(self, count: int) -> Batch:
        """Rows as verl's ``upsample_batch_to_divisible_size`` makes them: one masked token after a prompt."""
        extra = Batch(
            prompts=[torch.full((7,), EOS)] * count,
            responses=[torch.full((1,), EOS)] * count,
            reward_N=np.zeros(count),
            advantage_N=np.zeros(count),
            prompt_N=np.full(count, -1),
            intent_N=np.full(count, -1),
            is_anchor_N=np.zeros(count, dtype=bool),
            padding_N=np.ones(count, dtype=bool),
            masked_N=np.zeros(count, dtype=bool),
            old_log_probs=[torch.zeros(1)] * count,
        )
        joined: dict[str, Any] = {}
        for name, value in vars(self).items():
            more = getattr(extra, name)
            joined[name] = value + more if isinstance(value, list) else np.concatenate([value, more])
        return Batch(**joined)

    def with_masked(self, rows: Sequence[int]) -> Batch:
        """Rows on which the judge abstained: no reward, no advantage."""
        masked_N = self.masked_N.copy()
        masked_N[list(rows)] = True
        return replace(
            self,
            masked_N=masked_N,
            reward_N=np.where(masked_N, np.nan, self.reward_N),
            advantage_N=np.where(masked_N, 0.0, self.advantage_N),
        )


def make_batch(
    reward_ZSK: np.ndarray, *, anchors: int = 1, seed: int = 0, response_length: tuple[int, int] = (1, 8)
) -> Batch:
    """Whole meta-groups with random text and the rewards given: [intents, prompts, completions]."""
    Z, S, K = reward_ZSK.shape
    rng = np.random.default_rng(seed)

    def text(low: int, high: int) -> Tensor:
        return torch.from_numpy(rng.integers(3, VOCABULARY, size=rng.integers(low, high + 1)))

    intent_N, place_N, _ = (axis.ravel() for axis in np.indices((Z, S, K)))
    prompt_N = intent_N * S + place_N
    prompt_S = [text(2, 6) for _ in range(Z * S)]
    responses = [text(*response_length) for _ in prompt_N]
    none_N = np.zeros(len(prompt_N), dtype=bool)
    return Batch(
        prompts=[prompt_S[prompt] for prompt in prompt_N],
        responses=responses,
        reward_N=reward_ZSK.ravel().astype(float),
        advantage_N=rng.normal(size=len(prompt_N)),
        prompt_N=prompt_N,
        intent_N=intent_N,
        is_anchor_N=place_N < anchors,
        padding_N=none_N,
        masked_N=none_N,
        old_log_probs=[torch.zeros(len(response)) for response in responses],
    )


def random_batch(intents: int = 2, prompts: int = 4, completions: int = 2, seed: int = 0) -> Batch:
    """Sixteen rows by default: it divides by two ranks and micro-batches of 1, 2 and 4."""
    rng = np.random.default_rng(seed)
    return make_batch(rng.choice([-1.0, 1.25, 2.5], size=(intents, prompts, completions)), seed=seed)


def driver_weights(batch: Batch, air: AirConfig) -> np.ndarray:
    """What the trainer writes alongside the advantages: :func:`verl_air.training.batch.loss_weights`, [N]."""
    N = len(batch)
    trajectories = Trajectories(
        keys=[f"{prompt}_{row}_0" for row, prompt in enumerate(batch.prompt_N)],
        prompt_N=batch.prompt_N,
        group_N=batch.intent_N,
        role_N=np.where(batch.is_anchor_N, "anchor", "open"),
        domain_N=np.full(N, "maths"),
        reward_N=batch.reward_N,
        info_N={name: np.full(N, np.nan) for name in REWARD_INFO},
        length_N=np.array([len(response) for response in batch.responses]),
        truncated_N=np.zeros(N, dtype=bool),
        padding_N=batch.padding_N,
        final_N=np.ones(N, dtype=bool),
        session_N=np.arange(N),
    )
    return loss_weights(trajectories, batch.valid_N, air)
