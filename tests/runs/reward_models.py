"""Reward models for the playground, made on the spot: random, but decided enough that their verdicts differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SEED = 5


def save_judge(folder: Path) -> Path:
    """A language model that knows the playground's words."""
    from transformers import Qwen3ForCausalLM

    return _save(Qwen3ForCausalLM, folder)


def save_classifier(folder: Path) -> Path:
    """A discriminative reward model: one number for a conversation."""
    from transformers import Qwen3ForSequenceClassification

    return _save(Qwen3ForSequenceClassification, folder, num_labels=1)


def _save(kind: type[Any], folder: Path, **settings: Any) -> Path:
    import torch

    from verl_air.playground.language import build_tokenizer
    from verl_air.playground.model import build_model

    tokenizer = build_tokenizer()
    config = build_model(tokenizer, seed=SEED).config
    for name, value in {"initializer_range": 0.2, **settings}.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        kind(config).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
