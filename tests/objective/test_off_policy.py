"""What ``air.importance=ratio`` corrects, by enumerating every outcome under the policy that wrote the rollouts.

One intent: an anchor and an open prompt, K = 2 completions of each, two tokens of two actions. Weights, ratio and loss
are the implemented ones, ``rollout_is_weights`` are verl's own. ``python -m tests.objective.test_off_policy`` prints
the table of docs/estimators.md.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

from tests.runs.staleness import relative_norm
from verl_air.objective import importance_ratio, surrogate_loss, trajectory_weights

K, CONTEXTS = 2, 2
UNLIMITED = 1e6


@dataclass(frozen=True)
class Correction:
    """level: of verl's weights, or ``bypass``: none, with the rollout's log-probs as the old ones; None: no ratio."""

    level: str | None
    limit: float = UNLIMITED


NOTHING, SEQUENCE, TOKEN = Correction(None), Correction("sequence"), Correction("token")
SEQUENCE_2, TOKEN_2, BYPASS_2 = Correction("sequence", 2.0), Correction("token", 2.0), Correction("bypass", 2.0)


class Policy:
    """logits_CSA: the first token's in row 0, and the second's in the row that the first token chooses."""

    def __init__(self, logits_CSA: Tensor, tokens: int) -> None:
        self.logits_CSA, self.tokens = logits_CSA, tokens
        self.responses_RT = torch.tensor(list(itertools.product(range(2), repeat=tokens)))

    def log_prob_CRT(self) -> Tensor:
        """Of each token of each response there is."""
        log_CSA, first_R = self.logits_CSA.log_softmax(-1), self.responses_RT[:, 0]
        columns = [log_CSA[:, 0, first_R]]
        if self.tokens == 2:
            columns.append(log_CSA[:, 1 + first_R, self.responses_RT[:, 1]])
        return torch.stack(columns, -1)


@dataclass(frozen=True)
class World:
    """drift: how far the policy has moved since the rollouts were written, in logits."""

    seed: int
    drift: float
    tokens: int = 2

    def policies(self) -> tuple[Policy, Policy, Tensor]:
        """Of the rollouts, of the update, and the reward of each response: [C, R]."""
        generator = torch.Generator().manual_seed(self.seed)
        old, step = (torch.randn(CONTEXTS, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
        reward_CR = torch.randn(CONTEXTS, 2**self.tokens, generator=generator, dtype=torch.float64)
        new = (old + self.drift * step).requires_grad_()
        return Policy(old, self.tokens), Policy(new, self.tokens), reward_CR

    def expected_gradient(self, correction: Correction, *, on_policy: bool = False) -> Tensor:
        """E[gradient of J_aux], over all outcomes; ``on_policy``: of rollouts that the policy itself wrote."""
        behaviour, policy, reward_CR = self.policies()
        behaviour = policy if on_policy else behaviour
        new_CRT, old_CRT = policy.log_prob_CRT(), behaviour.log_prob_CRT().detach()
        prompt_N = torch.arange(CONTEXTS).repeat_interleave(K)
        mask_NT = torch.ones(len(prompt_N), self.tokens)
        total = torch.zeros((), dtype=torch.float64)
        for outcome in itertools.product(range(2**self.tokens), repeat=CONTEXTS * K):
            chosen = prompt_N, torch.tensor(outcome)
            weight_N = trajectory_weights(reward_CR[chosen], prompt_N, torch.zeros_like(prompt_N), prompt_N == 0)
            ratio_NT = _ratio(correction, new_CRT[chosen].detach(), old_CRT[chosen], mask_NT)
            loss = surrogate_loss(new_CRT[chosen], weight_N, mask_NT, num_trajectories=K, ratio_NT=ratio_NT)
            total = total + old_CRT[chosen].sum().exp() * loss
        return torch.autograd.grad(total, policy.logits_CSA)[0]

    def stale_gap_gradient(self) -> Tensor:
        """-Delta of the rollouts' policy times the gradient of the open prompt's expected reward, now: by autograd."""
        behaviour, policy, reward_CR = self.policies()
        before_C, now_C = ((p.log_prob_CRT().sum(-1).exp() * reward_CR).sum(-1) for p in (behaviour, policy))
        return torch.autograd.grad(-(before_C[0] - before_C[1]).detach() * now_C[1], policy.logits_CSA)[0]


def _ratio(correction: Correction, new_NT: Tensor, rollout_NT: Tensor, mask_NT: Tensor) -> Tensor | None:
    """As the actor has it in the only update of a step: the old policy is the one that is trained."""
    if correction.level is None:
        return None
    if correction.level == "bypass":
        return importance_ratio(new_NT, rollout_NT, max_ratio=correction.limit)
    weights, _ = compute_rollout_correction_weights(
        new_NT - rollout_NT, mask_NT, rollout_is=correction.level, rollout_is_threshold=correction.limit
    )
    return importance_ratio(new_NT, new_NT, weights)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


EXACT = 1e-5
"""Weights and ratios are float32."""

SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("correction", "tokens"),
    [(SEQUENCE, 2), (SEQUENCE, 1), (TOKEN, 1), (Correction("bypass", math.inf), 1)],
    ids=["sequence", "sequence of 1", "token of 1", "bypass of 1"],
)
def test_whole_ratios_that_nothing_truncates_leave_the_stale_gap_alone(
    seed: int, correction: Correction, tokens: int
) -> None:
    """Unbiased for the gap of the rollouts' policy times today's gradient of the reward."""
    world = World(seed, drift=0.7, tokens=tokens)
    assert error(world.expected_gradient(correction), world.stale_gap_gradient()) < EXACT


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "correction",
    [NOTHING, TOKEN, Correction("sequence", 1.2), Correction("bypass", 1.2)],
    ids=["none", "token", "sequence, cut", "bypass, cut"],
)
def test_anything_less_is_biased(seed: int, correction: Correction) -> None:
    """A limit of 1.2 cuts something off in each of these worlds."""
    world = World(seed, drift=1.4)
    assert error(world.expected_gradient(correction), world.stale_gap_gradient()) > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_no_ratio_corrects_a_gap_of_stale_rewards(seed: int) -> None:
    world = World(seed, drift=0.7)
    assert error(world.expected_gradient(SEQUENCE), world.expected_gradient(NOTHING, on_policy=True)) > 0.01


@pytest.mark.parametrize("correction", [NOTHING, SEQUENCE_2, TOKEN_2, BYPASS_2])
def test_on_policy_every_correction_is_exact(correction: Correction) -> None:
    """Where the rollouts are the policy's own the ratio is 1, and the estimator is the one without it."""
    world = World(seed=0, drift=0.0)
    assert error(world.expected_gradient(correction), world.stale_gap_gradient()) < EXACT


@pytest.mark.parametrize("bias", [0.0, 0.3, 1.0])
def test_the_intervals_of_real_runs_tell_bias_from_noise(bias: float) -> None:
    """``tests.runs.staleness``, which has no enumeration to go by: noise is larger than what is measured."""
    generator = torch.Generator().manual_seed(0)
    batches, size, repeats = 16, 50, 200
    truth_P = torch.zeros(size)
    truth_P[0] = 4.0
    estimates = []
    for _ in range(repeats):
        noise_BP, other_BP = torch.randn(2, batches, size, generator=generator)
        estimates.append(relative_norm(bias * truth_P + noise_BP, truth_P + other_BP))
    assert sum(found.low <= bias <= found.high for found in estimates) >= 0.9 * repeats
    seen = sum(found.low > 0 for found in estimates)
    assert seen <= 0.1 * repeats if bias == 0 else seen > 0.1 * repeats


def table() -> str:
    """Median error against the on-policy gradient, and below it against the stale gap's, over eight worlds."""
    columns = {
        "none": NOTHING, "token": TOKEN, "token, 2": TOKEN_2, "sequence": SEQUENCE, "sequence, 2": SEQUENCE_2,
        "bypass, 2": BYPASS_2,
    }  # fmt: skip
    lines = ["| drift | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for drift in (0.1, 0.3, 1.0):
        worlds = [World(seed, drift) for seed in range(8)]
        cells = []
        for correction in columns.values():
            pairs = [
                (
                    error(w.expected_gradient(correction), w.stale_gap_gradient()),
                    error(w.expected_gradient(correction), w.expected_gradient(NOTHING, on_policy=True)),
                )
                for w in worlds
            ]
            cells.append(" / ".join(f"{torch.tensor(found).median():.2g}" for found in zip(*pairs, strict=True)))
        lines.append(f"| {drift} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
