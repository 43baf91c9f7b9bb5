"""What must hold of any Megatron run, checked with transformers, independently of what trained it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tests.runs.launch import Run

SYNCED = 1e-5
"""Largest difference of a token's probability between vLLM and the actor in fp32; measured: below 1e-6."""

MAX_RESPONSE = 16
"""``data.max_response_length`` of the quickstart."""


def probs_diff_max(run: Run) -> dict[int, float]:
    """By step: how far vLLM's probabilities of the tokens it generated are from the Megatron actor's."""
    return {step: metrics["training/rollout_probs_diff_max"] for step, metrics in run.metrics().items()}


def assert_synced(run: Run) -> None:
    assert max(probs_diff_max(run).values()) < SYNCED, probs_diff_max(run)


def checkpoint(run: Run, step: int) -> Path:
    """The Hugging Face folder of a checkpoint: with ``use_dist_checkpointing=False`` verl merges as it saves."""
    return run.folder / "checkpoints" / f"global_step_{step}" / "actor" / "model" / "huggingface"


def load(folder: Path) -> PreTrainedModel:
    """A model all of whose tensors come from the folder, and all of the folder's tensors are used."""
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def largest_difference(one: PreTrainedModel, other: PreTrainedModel) -> dict[str, float]:
    """By tensor."""
    theirs = other.state_dict()
    assert theirs.keys() == one.state_dict().keys()
    return {name: float((tensor - theirs[name]).abs().max()) for name, tensor in one.state_dict().items()}


def assert_moved(before: Path, after: Path) -> None:
    """Training has changed every tensor."""
    moved = largest_difference(load(after), load(before))
    assert min(moved.values()) > 0.0, moved


def is_what_a_step_started_from(folder: Path, run: Run, step: int) -> bool:
    """Whether the model in a folder gives a step's rollouts the likelihood and entropy that the actor computed.

    The actor did so with its own layers, split over its ranks, before that step's update.
    """
    negative_log_prob, entropy = _log_perplexity_and_entropy(folder, run, step)
    metrics = run.metrics()[step]
    same_log_prob = negative_log_prob == pytest.approx(metrics["rollout_corr/training_log_ppl"], abs=1e-5)
    return bool(same_log_prob and entropy == pytest.approx(metrics["actor/entropy"], abs=1e-5))


@torch.no_grad()
def _log_perplexity_and_entropy(folder: Path, run: Run, step: int) -> tuple[float, float]:
    """Mean over rollouts of the mean -log p of a response's tokens, and mean entropy over all these tokens, in nats."""
    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
    log_perplexities, entropies = [], []
    for row in run.rollouts(step):
        _, *words, _ = row["input"].split()  # between the words for user and assistant
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": " ".join(words)}], add_generation_prompt=True, return_dict=False
        )
        response = tokenizer.encode(row["output"], add_special_tokens=False)
        if len(response) < MAX_RESPONSE:
            response.append(tokenizer.eos_token_id)  # left out where rollouts are stored
        log_probs = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        log_perplexities.append(-log_probs.gather(1, torch.tensor(response)[:, None]).mean())
        entropies.append(-(log_probs.exp() * log_probs).sum(-1))
    return float(torch.stack(log_perplexities).mean()), float(torch.cat(entropies).mean())
