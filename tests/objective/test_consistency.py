"""On-policy consistency training, by enumeration: what its token weights minimise, and what they do not."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from verl_air.objective import consistency_weight, surrogate_loss

WORDS = 3


class TwoTokens:
    """Responses of two tokens: a distribution of the first, and one of the second after each first."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.first_V = torch.randn(WORDS, generator=generator, dtype=torch.float64).requires_grad_()
        self.second_VV = torch.randn(WORDS, WORDS, generator=generator, dtype=torch.float64).requires_grad_()

    def log_prob_T(self, tokens: tuple[int, int]) -> Tensor:
        first, second = tokens
        return torch.stack([self.first_V.log_softmax(0)[first], self.second_VV[first].log_softmax(0)[second]])

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [self.first_V, self.second_VV])])


@pytest.fixture
def policy() -> TwoTokens:
    """Given an open variant."""
    return TwoTokens(0)


@pytest.fixture
def initial() -> TwoTokens:
    """Given the plain request."""
    return TwoTokens(1)


RESPONSES = list(product(range(WORDS), repeat=2))


def expected_gradient(policy: TwoTokens, initial: TwoTokens) -> Tensor:
    """Of the loss, over all responses that the policy can give."""
    total = torch.zeros(WORDS + WORDS * WORDS, dtype=torch.float64)
    for tokens in RESPONSES:
        log_prob_T = policy.log_prob_T(tokens)
        weight_T = consistency_weight(log_prob_T, initial.log_prob_T(tokens))
        loss = surrogate_loss(log_prob_T[None], weight_T[None], torch.ones(1, 2), num_trajectories=1)
        total += log_prob_T.sum().exp().detach() * policy.gradient(loss)
    return total


def kl_V(own: Tensor, other: Tensor) -> Tensor:
    """Reverse KL of the last axis."""
    own, other = own.log_softmax(-1), other.log_softmax(-1)
    return (own.exp() * (own - other)).sum(-1)


def test_the_gradient_is_that_of_each_tokens_kl_at_the_prefixes_that_were_sampled(
    policy: TwoTokens, initial: TwoTokens
) -> None:
    prefix_V = policy.first_V.softmax(0).detach()
    objective = kl_V(policy.first_V, initial.first_V) + (prefix_V * kl_V(policy.second_VV, initial.second_VV)).sum()
    torch.testing.assert_close(
        expected_gradient(policy, initial), policy.gradient(objective), rtol=1e-6, atol=1e-7
    )  # the loss is in float32


def test_it_is_not_that_of_the_kl_of_whole_responses(policy: TwoTokens, initial: TwoTokens) -> None:
    whole = sum(
        policy.log_prob_T(y).sum().exp() * (policy.log_prob_T(y) - initial.log_prob_T(y).detach()).sum()
        for y in RESPONSES
    )
    found, exact = expected_gradient(policy, initial), policy.gradient(torch.as_tensor(whole))
    assert (found - exact)[:WORDS].norm() > 0.05 * exact.norm(), "the first token is not blamed for what follows it"
    torch.testing.assert_close(found[WORDS:], exact[WORDS:], rtol=1e-5, atol=1e-6)


def test_a_policy_that_answers_as_before_is_left_alone(policy: TwoTokens) -> None:
    assert not expected_gradient(policy, policy).any()


def test_weights_carry_no_gradient(policy: TwoTokens, initial: TwoTokens) -> None:
    assert not consistency_weight(policy.log_prob_T((0, 0)), initial.log_prob_T((0, 0))).requires_grad
