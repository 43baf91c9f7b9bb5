"""A random Qwen2 of some 50 thousand weights, made on the spot: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 64
PAD, EOS = 0, 2


def save_tiny_model(
    folder: Path, *, layers: int = 4, hidden: int = 32, vocabulary: int = VOCABULARY, **settings: Any
) -> None:
    """Four layers, so that two pipeline stages can hold two virtual ones each; two key-value heads, for tp = 2.

    ``settings`` are other fields of ``Qwen2Config``: with them it need not be tiny.
    """
    settings = {"intermediate_size": 2 * hidden, "num_attention_heads": 4, "tie_word_embeddings": False} | settings
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        # Large enough for log-probs to differ between tokens: a flat policy would hide faults.
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=PAD,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).float()
        with torch.no_grad():  # transformers starts biases at zero and norms at one: no test could distinguish them
            for name, parameter in model.named_parameters():
                if name.endswith("bias") or "norm" in name:
                    parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    words = {f"w{index}": index for index in range(vocabulary)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w1")),
        pad_token=f"w{PAD}",
        eos_token=f"w{EOS}",
    )
    tokenizer.save_pretrained(folder)
