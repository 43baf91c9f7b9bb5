"""Sampling from the model and reading its verdicts, for measuring the warm start. RL itself samples with vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from verl_air.playground.judging import NEGATIVE_WORD, POSITIVE_WORD

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

MAX_RESPONSE_TOKENS = 16


def sample_responses(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], *, seed: int
) -> list[str]:
    """One response a prompt at temperature 1, decoded as verl does. torch's global random state is left as it was."""
    import torch

    encoded = _encode(tokenizer, prompts)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        out_NT = model.generate(
            **encoded, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=MAX_RESPONSE_TOKENS
        )
    responses: list[str] = tokenizer.batch_decode(out_NT[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    return responses


def verdict_log_odds(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, judge_prompts: Sequence[str]
) -> torch.Tensor:
    """Log-odds [N] of the positive against the negative verdict word as the next token, in nats."""
    import torch

    positive, negative = (tokenizer.convert_tokens_to_ids(word) for word in (POSITIVE_WORD, NEGATIVE_WORD))
    with torch.inference_mode():
        logits_NV = model(**_encode(tokenizer, judge_prompts)).logits[:, -1]
    return logits_NV[:, positive] - logits_NV[:, negative]


def _encode(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> Any:
    """Chat prompts ready to be answered, padded on the left."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    encoded = tokenizer.apply_chat_template(
        chats,
        add_generation_prompt=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
        tokenizer_kwargs={"padding_side": "left"},
    )
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}
