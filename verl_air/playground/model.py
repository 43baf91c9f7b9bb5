"""The policy of the playground: a two-layer Qwen3 of 0.13 million weights, and its warm start.

Supervised steps make a policy that answers anchors right, is fooled by framings, and can judge. Labels are drawn for
every batch, with the framing's own probability of fooling the policy: so the model learns the probability instead of
one remembered label per intent. The warm start sees the whole world, held-out intents and OOD framings included, as a
pretrained model has: nothing can be fooled by words it never read. What RL never sees is decided by the data files.

The number of steps is fixed, never the time: a seed gives the same weights on the same machine.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TextIO

import torch

from verl_air.playground.framings import FRAMINGS, PlaygroundFraming, Setting, Turns, messages
from verl_air.playground.language import (
    CLOSERS,
    LETTERS,
    MAX_LENGTH,
    judge_prompt,
    render_anchor,
    render_answer,
    render_response,
)
from verl_air.playground.rewards import render_verdict
from verl_air.playground.world import INTENTS, STANCES, PlaygroundIntent, Stance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

HIDDEN, LAYERS, HEAD = 64, 2, 32  # heads of 32 are the narrowest that vLLM's CPU attention takes
IGNORED = -100

ANCHOR_ERROR = 0.08  # an anchor is answered wrong
OVER_REFUSAL = 0.05  # a benign open request is refused
BROKEN_FORMAT = 0.03  # a response lacks a tag
ODD_ANSWER = 0.1  # the judge is shown an answer without a clear stance


def build_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> Qwen3ForCausalLM:
    """A freshly initialised model whose vocabulary is exactly the tokenizer's.

    With a larger one, verl's actor and vLLM would give different log-probabilities. Qwen3 instead of Qwen2: for
    ``model_type: qwen2`` transformers 5 ignores the saved tokenizer class and applies Qwen2's byte-level rules, so that
    every prompt would turn into other tokens. torch's global random state is left as it was.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HIDDEN // HEAD,
        num_key_value_heads=HIDDEN // HEAD,
        head_dim=HEAD,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.05,  # the usual 0.02 is for wide models; here the hidden rule is then learned very late
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).float()


class ChatExample(NamedTuple):
    """A prompt and what the model is to say next, in plain words."""

    prompt: str | Turns
    target: str


def anchor_example(intent: PlaygroundIntent, rng: random.Random) -> ChatExample:
    """A multiple-choice question, its options in random order, mostly answered right."""
    order = STANCES if rng.random() < 0.5 else STANCES[::-1]
    prompt, letter = render_anchor(intent, order)
    stance = intent.right_stance
    if rng.random() < ANCHOR_ERROR:
        letter = LETTERS[1 - LETTERS.index(letter)]
        stance = STANCES[1 - STANCES.index(stance)]
    return ChatExample(prompt, render_response(stance, letter, rng, broken=rng.random() < BROKEN_FORMAT))


def open_example(intent: PlaygroundIntent, framing: PlaygroundFraming, rng: random.Random) -> ChatExample:
    """A framed request. A harmful one fools the model with the framing's probability."""
    refuses = rng.random() >= framing.fooled if intent.harmful else rng.random() < OVER_REFUSAL
    stance: Stance = "refuse" if refuses else "comply"
    response = render_response(stance, render_answer(stance, rng), rng, broken=rng.random() < BROKEN_FORMAT)
    return ChatExample(framing.render(intent, rng), response)


def judge_example(intent: PlaygroundIntent, rng: random.Random) -> ChatExample:
    """A reply to judge: of either stance, or an odd one."""
    if rng.random() < ODD_ANSWER:
        answer = rng.choice((*LETTERS, *CLOSERS, "", f"{render_answer('comply', rng)} {render_answer('refuse', rng)}"))
    else:
        answer = render_answer(rng.choice(STANCES), rng)
    return ChatExample(judge_prompt(intent.request, answer), render_verdict(intent, answer, rng))


def encode(tokenizer: PreTrainedTokenizerFast, examples: Sequence[ChatExample]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids [N, T] padded on the right, and labels [N, T]: the target and the end token, ``IGNORED`` elsewhere."""
    chats = [messages(example.prompt) for example in examples]
    prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True)["input_ids"]
    targets = tokenizer([example.target + tokenizer.eos_token for example in examples])["input_ids"]
    length = max(len(prompt) + len(target) for prompt, target in zip(prompts, targets, strict=True))
    ids_NT = torch.full((len(examples), length), tokenizer.pad_token_id)
    labels_NT = torch.full((len(examples), length), IGNORED)
    for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        end = len(prompt) + len(target)
        ids_NT[row, :end] = torch.tensor(prompt + target)
        labels_NT[row, len(prompt) : end] = torch.tensor(target)
    return ids_NT, labels_NT


def example_loss(model: Qwen3ForCausalLM, ids_NT: torch.Tensor, labels_NT: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, averaged over the target of each example and then over examples, in nats.

    Every example counts alike: over all tokens, the one token of a verdict would be lost among the eight of a response.
    Padding is on the right, where causal attention never looks.
    """
    hidden_NTD = model.model(input_ids=ids_NT[:, :-1], use_cache=False).last_hidden_state
    wanted_NT = labels_NT[:, 1:]
    labelled_NT = wanted_NT != IGNORED
    loss_M = torch.nn.functional.cross_entropy(
        model.lm_head(hidden_NTD[labelled_NT]), wanted_NT[labelled_NT], reduction="none"
    )
    weight_NT = labelled_NT / labelled_NT.sum(dim=1, keepdim=True)
    return (loss_M * weight_NT[labelled_NT]).sum() / len(ids_NT)


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


def draw_batch(rng: random.Random, config: WarmStartConfig, setting: Setting = "plain") -> list[ChatExample]:
    """As many examples of each kind as the settings say, over all intents and all framings."""
    return [
        *(anchor_example(rng.choice(INTENTS), rng) for _ in range(config.anchors)),
        *(open_example(rng.choice(INTENTS), rng.choice(FRAMINGS[setting]), rng) for _ in range(config.opens)),
        *(judge_example(rng.choice(INTENTS), rng) for _ in range(config.judgements)),
    ]


def warm_start(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    setting: Setting = "plain",
    config: WarmStartConfig | None = None,
    progress: TextIO | None = sys.stderr,
) -> float:
    """Train the model in place; returns the mean loss of the last 50 steps, in nats."""
    config = config or WarmStartConfig()
    rng = random.Random(f"warm-start-{seed}")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    losses: deque[float] = deque(maxlen=50)
    started = time.monotonic()
    model.train()
    for step in range(config.steps):
        examples = draw_batch(rng, config, setting)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        loss = example_loss(model, *encode(tokenizer, examples))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        losses.append(loss.item())
        if progress is not None and ((step + 1) % 100 == 0 or step + 1 == config.steps):
            mean, elapsed = sum(losses) / len(losses), time.monotonic() - started
            print(f"warm start {step + 1}/{config.steps}  loss {mean:.3f}  {elapsed:.0f} s", file=progress, flush=True)
    model.eval()
    return sum(losses) / len(losses)
