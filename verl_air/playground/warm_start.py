"""The warm start: supervised steps that make a policy which knows the anchors, is fooled by framings, and can judge.

The number of steps is fixed, never the time: a seed gives the same weights on the same machine and thread count.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from verl_air.playground.examples import Example, draw_batch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class WarmStartConfig:
    """Settings of the warm start; the defaults are those of the quickstart."""

    steps: int = 800
    anchors: int = 32
    opens: int = 48
    judgements: int = 56  # with a third of it, some seeds stop short of the judge's rule
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    warm_up: int = 100
    clip: float = 1.0

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then linear down to a twentieth."""
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up) * (1 - 0.95 * step / self.steps)


def warm_start(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    config: WarmStartConfig | None = None,
    progress: TextIO | None = sys.stderr,
) -> float:
    """Train the model in place; returns the mean loss of the last 50 steps, in nats."""
    import torch

    config = config or WarmStartConfig()
    encoder = ChatEncoder(tokenizer)
    rng = random.Random(f"warm-start-{seed}")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    losses: list[float] = []
    started = time.monotonic()
    model.train()
    for step in range(config.steps):
        examples = draw_batch(rng, anchors=config.anchors, opens=config.opens, judgements=config.judgements)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        loss = example_loss(model, *encoder.batch(examples))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        losses.append(loss.item())
        if progress is not None and ((step + 1) % 100 == 0 or step + 1 == config.steps):
            recent = sum(losses[-50:]) / len(losses[-50:])
            elapsed = time.monotonic() - started
            print(
                f"warm start {step + 1}/{config.steps}  loss {recent:.3f}  {elapsed:.0f} s", file=progress, flush=True
            )
    model.eval()
    return sum(losses[-50:]) / len(losses[-50:])


def example_loss(model: Qwen3ForCausalLM, ids_NT: torch.Tensor, labels_NT: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, averaged over the target of each example and then over examples, in nats.

    Every example counts alike: over all tokens, the one token of a verdict would be lost among the eight of a response.
    Padding stands on the right, where causal attention never looks.
    """
    import torch

    hidden_NTD = model.model(input_ids=ids_NT[:, :-1], use_cache=False).last_hidden_state
    wanted_NT = labels_NT[:, 1:]
    labelled_NT = wanted_NT != IGNORED
    loss_M = torch.nn.functional.cross_entropy(
        model.lm_head(hidden_NTD[labelled_NT]), wanted_NT[labelled_NT], reduction="none"
    )
    weight_NT = labelled_NT / labelled_NT.sum(dim=1, keepdim=True)
    return (loss_M * weight_NT[labelled_NT]).sum() / len(ids_NT)


class ChatEncoder:
    """Examples to token ids, through the chat template without its cost: the words around a message never change."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        marker = "\N{BLACK SQUARE}"
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": marker}], add_generation_prompt=True, tokenize=False
        )
        before, after = text.split(marker)
        self._ids = tokenizer.get_vocab()
        self._before = tokenizer.encode(before)
        self._after = tokenizer.encode(after)
        self._end = tokenizer.eos_token_id
        self._pad = tokenizer.pad_token_id

    def batch(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """ids [N, T] padded on the right, and labels [N, T]: the target and the end token, ``IGNORED`` elsewhere."""
        import torch

        prompts = [self._before + self._words(example.prompt) + self._after for example in examples]
        targets = [[*self._words(example.target), self._end] for example in examples]
        length = max(len(prompt) + len(target) for prompt, target in zip(prompts, targets, strict=True))
        ids_NT = torch.full((len(examples), length), self._pad)
        labels_NT = torch.full((len(examples), length), IGNORED)
        for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            end = len(prompt) + len(target)
            ids_NT[row, :end] = torch.tensor(prompt + target)
            labels_NT[row, len(prompt) : end] = torch.tensor(target)
        return ids_NT, labels_NT

    def _words(self, text: str) -> list[int]:
        return [self._ids[word] for word in text.split()]
