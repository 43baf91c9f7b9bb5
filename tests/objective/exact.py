"""Exact expectations by enumeration, to compare the estimators with.

A world: one intent, C contexts (the first ``anchors`` of them anchors), a softmax policy over A actions in each
context, a reward for each (context, action), K completions a context. Every outcome of a context is enumerated with its
probability, so expectations are exact and need no sampling.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from verl_air.objective import trajectory_weights


@dataclass(frozen=True)
class World:
    """logits_CA and reward_CA in float64; the first ``anchors`` contexts are anchors."""

    logits_CA: Tensor
    reward_CA: Tensor
    anchors: int
    completions: int

    @classmethod
    def random(cls, seed: int, *, contexts: int, anchors: int, actions: int, completions: int) -> World:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(contexts, actions, generator=generator, dtype=torch.float64)
        reward = torch.randn(contexts, actions, generator=generator, dtype=torch.float64)
        return cls(logits, reward, anchors, completions)

    def risks(self, logits_CA: Tensor) -> Tensor:
        """R_c = -E[r]: [C]."""
        return -(logits_CA.softmax(-1) * self.reward_CA).sum(-1)


def exact_gradient(world: World, omega: str) -> Tensor:
    """Autograd of Omega_AIR or Omega_VREx with respect to the logits: [C, A]."""
    logits = world.logits_CA.clone().requires_grad_()
    risk_C = world.risks(logits)
    if omega == "air":
        anchor = risk_C[: world.anchors].mean().detach()
        value = (risk_C[world.anchors :] - anchor).square().sum()
    else:
        value = (risk_C - risk_C.mean()).square().mean()
    return torch.autograd.grad(value, logits)[0]


def expected_surrogate_gradient(world: World, regularizer: str, estimator: str) -> Tensor:
    """E[ sum over trajectories of weight * grad log pi ] with respect to the logits: [C, A], exactly.

    The batch is K completions of each context; all of the (A^K)^C outcomes are enumerated.
    """
    C, A = world.logits_CA.shape
    K = world.completions
    probability_CA = world.logits_CA.softmax(-1)
    tuples = torch.tensor(list(itertools.product(range(A), repeat=K)))  # [A^K, K]
    prompt_N = torch.arange(C).repeat_interleave(K)
    intent_N = torch.zeros_like(prompt_N)
    is_anchor_N = prompt_N < world.anchors
    total = torch.zeros(C, A, dtype=torch.float64)
    for outcome in itertools.product(range(len(tuples)), repeat=C):
        action_CK = tuples[list(outcome)]
        probability = probability_CA.gather(1, action_CK).prod()
        reward_N = world.reward_CA.gather(1, action_CK).flatten()
        weight_N = trajectory_weights(
            reward_N, prompt_N, intent_N, is_anchor_N, regularizer=regularizer, estimator=estimator
        ).double()
        # grad log pi(a) = onehot(a) - pi
        score_NA = torch.nn.functional.one_hot(action_CK.flatten(), A) - probability_CA[prompt_N]
        total.index_add_(0, prompt_N, probability * weight_N.unsqueeze(-1) * score_NA)
    return total
