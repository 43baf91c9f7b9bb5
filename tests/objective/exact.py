"""Exact expectations by enumeration, to compare the estimators with.

A world: one intent, C contexts (the first ``anchors`` of them anchors), a softmax policy over A actions in each
context, a reward and a verdict for each (context, action), K completions a context. Every one of the (A^K)^C outcomes
is a meta-group of one big batch, with its probability, so expectations are exact and need no sampling.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from verl_air.objective import trajectory_weights


@dataclass(frozen=True)
class World:
    """logits_CA, reward_CA: float64; right_CA: verdicts; the first ``anchors`` contexts are anchors."""

    logits_CA: Tensor
    reward_CA: Tensor
    right_CA: Tensor
    anchors: int
    completions: int

    @classmethod
    def random(cls, seed: int, *, contexts: int, anchors: int, actions: int, completions: int) -> World:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(contexts, actions, generator=generator, dtype=torch.float64)
        reward = torch.randn(contexts, actions, generator=generator, dtype=torch.float64)
        right = torch.rand(contexts, actions, generator=generator).argsort(-1) < max(1, actions // 2)
        return cls(logits, reward, right, anchors, completions)

    @classmethod
    def of_accuracies(cls, *accuracy_C: float, completions: int, right: float = 1.0, wrong: float = -1.0) -> World:
        """One anchor, then open contexts; two actions, the first one right."""
        p = torch.tensor(accuracy_C, dtype=torch.float64)
        logits = torch.stack([p.log(), (1 - p).log()], -1)
        reward = torch.tensor([[right, wrong]], dtype=torch.float64).expand(len(p), 2)
        return cls(logits, reward, torch.tensor([[True, False]]).expand(len(p), 2), 1, completions)

    @property
    def probability_CA(self) -> Tensor:
        return self.logits_CA.softmax(-1)

    @property
    def mean_C(self) -> Tensor:
        """E[r] of each context."""
        return (self.probability_CA * self.reward_CA).sum(-1)

    def gradient(self, objective: Callable[[Tensor], Tensor]) -> Tensor:
        """Autograd of a function of the policy's probabilities [C, A] with respect to the logits: [C, A]."""
        logits = self.logits_CA.clone().requires_grad_()
        return torch.autograd.grad(objective(logits.softmax(-1)), logits)[0]

    @cached_property
    def action_OCK(self) -> Tensor:
        """All outcomes O."""
        C, A = self.logits_CA.shape
        tuples = torch.tensor(list(itertools.product(range(A), repeat=self.completions)))
        return tuples[torch.cartesian_prod(*[torch.arange(len(tuples))] * C)]

    def of_actions(self, value_CA: Tensor) -> Tensor:
        """A value of each completion of each outcome: [O, C, K]."""
        C, A = self.logits_CA.shape
        return value_CA.flatten()[self.action_OCK + A * torch.arange(C)[:, None]]

    @cached_property
    def probability_O(self) -> Tensor:
        return self.of_actions(self.probability_CA).prod(-1).prod(-1)

    def batch(self) -> dict[str, Tensor]:
        """Arguments of ``trajectory_weights``: each outcome is a meta-group."""
        outcomes, C, K = self.action_OCK.shape
        prompt_N = torch.arange(outcomes * C).repeat_interleave(K)
        return {
            "reward_N": self.of_actions(self.reward_CA).flatten(),
            "prompt_N": prompt_N,
            "intent_N": prompt_N // C,
            "is_anchor_N": prompt_N % C < self.anchors,
        }

    def weights(self, **options: str | float) -> Tensor:
        """The weight of each completion of each outcome: [O, C, K]."""
        right_N = self.of_actions(self.right_CA).flatten()
        weight_N = trajectory_weights(**self.batch(), right_N=right_N, **options)
        return weight_N.double().view(self.action_OCK.shape)

    def gradients(self, weight_OCK: Tensor) -> Tensor:
        """Sum over trajectories of weight * grad log pi, of each outcome: [O, C, A]."""
        score_OCKA = (
            torch.nn.functional.one_hot(self.action_OCK, self.logits_CA.shape[1]) - self.probability_CA[:, None]
        )
        return (weight_OCK.unsqueeze(-1) * score_OCKA).sum(2)

    def expected_gradient(self, weight_OCK: Tensor) -> Tensor:
        """Its expectation, exactly: [C, A]."""
        return torch.einsum("o,oca->ca", self.probability_O, self.gradients(weight_OCK))
