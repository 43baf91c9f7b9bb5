"""The losses by their definitions, on the whole batch at once, row by row, in float64: what engines are compared with.

Nothing is computed by verl or verl_air here: plain loops over a Hugging Face model, and autograd.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.engines.batch import Batch
from tests.engines.training import AIR, consistency_weight_T

Gradients = Mapping[str, Tensor]

PPO_CLIP, PPO_DUAL_CLIP = 0.2, 3.0


class Definition:
    """The policy in float64, and gradients of the loss with respect to its parameters."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager")

    def log_probs(self, batch: Batch) -> list[Tensor]:
        """Log-probs of each row's response tokens; they carry gradients."""
        rows = []
        for prompt, response in zip(batch.prompts, batch.responses, strict=True):
            logits = self.model(torch.cat([prompt, response])[None]).logits[0]
            predicting = logits[len(prompt) - 1 : -1].log_softmax(-1)
            rows.append(predicting.gather(1, response[:, None])[:, 0])
        return rows

    def off_policy(self, batch: Batch, noise: float = 0.15, seed: int = 0) -> Batch:
        """The batch with old log-probs near the policy's own, so that some ratios are clipped and most are not."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            rows = self.log_probs(batch)
        noisy = [(row + noise * torch.randn(len(row), generator=generator)).float() for row in rows]
        return replace(batch, old_log_probs=noisy)

    def step_gradients(self, batch: Batch, *, coef: float = AIR.coef, max_ratio: float | None = None) -> Gradients:
        """Of a step's whole loss: PPO's, plus ours."""
        log_probs = self.log_probs(batch)
        return self.gradients(ppo_loss(batch, log_probs) + coef * air_loss(batch, log_probs, max_ratio=max_ratio))

    def term_gradients(self, batch: Batch) -> Gradients:
        """Of the auxiliary term alone."""
        return self.gradients(AIR.coef * air_loss(batch, self.log_probs(batch)))

    def gradients(self, loss: Tensor) -> Gradients:
        """Of every parameter, by its Hugging Face name."""
        names, parameters = zip(*self.model.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True))


def air_loss(
    batch: Batch, log_probs: list[Tensor], *, rows: Sequence[int] | None = None, max_ratio: float | None = None
) -> Tensor:
    """J_aux = -(1/N_valid) sum over open rows of gap * reward * log pi, as the paper has it.

    Of a mini-batch, given by its ``rows``, it is that sum over them, times the number of mini-batches: so the mean over
    mini-batches is the whole. With ``max_ratio`` each token carries the detached ratio pi / pi_old, clipped from above.
    """
    total = torch.zeros((), dtype=torch.float64)
    rows = range(len(batch)) if rows is None else rows
    for row in rows:
        if not batch.valid_N[row] or batch.is_anchor_N[row]:
            continue
        intent = batch.intent_N[row]
        anchors = np.unique(batch.prompt_N[(batch.intent_N == intent) & batch.is_anchor_N])
        anchor_means = [mean for mean in (_mean_reward(batch, anchor) for anchor in anchors) if mean is not None]
        own_mean = _mean_reward(batch, batch.prompt_N[row])
        if not anchor_means or own_mean is None:
            continue
        gap = float(np.mean(anchor_means)) - own_mean
        log_prob = log_probs[row]
        if max_ratio is not None:
            ratio = (log_prob.detach() - batch.old_log_probs[row].double()).exp()
            log_prob = ratio.clamp(max=max_ratio) * log_prob
        total = total + gap * float(batch.reward_N[row]) * log_prob.sum()
    return -total / int(batch.valid_N.sum()) * (len(batch) / len(rows))


def consistency_loss(batch: Batch, log_probs: list[Tensor]) -> Tensor:
    """-(1/N) sum over rows and tokens of weight * log pi."""
    weights = map(consistency_weight_T, batch.responses, batch.valid_N)
    return -sum(((w.double() * row).sum() for w, row in zip(weights, log_probs, strict=True)), torch.tensor(0.0)) / len(
        batch
    )


def _mean_reward(batch: Batch, prompt: int) -> float | None:
    rewards = batch.reward_N[(batch.prompt_N == prompt) & batch.valid_N]
    return float(rewards.mean()) if len(rewards) else None


def ppo_loss(batch: Batch, log_probs: list[Tensor]) -> Tensor:
    """PPO's clipped loss with dual clip, averaged over the valid tokens of the batch."""
    losses = []
    for row in np.flatnonzero(batch.valid_N):
        advantage = float(batch.advantage_N[row])
        ratio = (log_probs[row] - batch.old_log_probs[row].double()).exp()
        loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - PPO_CLIP, 1 + PPO_CLIP))
        losses.append(loss if advantage >= 0 else loss.clamp(max=-advantage * PPO_DUAL_CLIP))
    return torch.cat(losses).mean()


def combine(terms: Iterable[tuple[float, Gradients]]) -> Gradients:
    """A linear combination of gradients."""
    terms = list(terms)
    return {name: torch.stack([scale * found[name].double() for scale, found in terms]).sum(0) for name in terms[0][1]}


def relative_error(found: Gradients, expected: Gradients) -> float:
    """Norm of the difference over the norm of what was expected, all parameters together."""
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
    difference = combine([(1.0, found), (-1.0, expected)])
    return float(_norm(difference) / _norm(expected))


FP32 = 1e-5
"""The largest relative error of a gradient computed in float32; the engines stay some ten times below."""


def assert_close(found: Gradients, expected: Gradients) -> None:
    """All parameters together, and each by itself: a fault in a small one must not hide behind a large one."""
    error, (worst, name) = relative_error(found, expected), worst_tensor(found, expected)
    assert error < FP32, f"the gradient is off by {error:.2e} of its norm"
    assert worst < 10 * FP32, f"the gradient of {name} is off by {worst:.2e} of its norm"


def worst_tensor(found: Gradients, expected: Gradients) -> tuple[float, str]:
    """The parameter whose gradient is furthest off, relative to its own norm."""
    return max((relative_error({n: found[n]}, {n: expected[n]}), n) for n in expected if expected[n].norm() > 0)


def _norm(gradients: Gradients) -> float:
    return float(torch.stack([value.double().norm() for value in gradients.values()]).norm())
