"""What a served judge should have said: the same weights in this process, one forward pass per prompt."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from verl_air.rewards.judge.prompts import JudgeTokenizer, Prompt, Rendering, fill


class ForwardPass:
    """A saved judge or classifier, and its own tokenizer unless another is given."""

    def __init__(self, folder: Path, tokenizer: Any = None) -> None:
        self.folder = folder
        self.tokens = JudgeTokenizer(tokenizer or AutoTokenizer.from_pretrained(folder), {})

    def log_odds(self, prompt: Prompt, positive: str, negative: str, fields: Mapping[str, str]) -> float:
        """Log-odds (nats) of two words after a prompt."""
        with torch.inference_mode():
            logits_V = self._judge(torch.tensor([self._ids(prompt, fields)])).logits[0, -1]
        first, second = (
            logits_V[[ids[0] for ids in spellings]].logsumexp(0)
            for spellings in self.tokens.spellings((positive, negative))
        )
        return float(first - second)

    def outputs(self, conversation: Prompt, fields: Mapping[str, str]) -> list[float]:
        """A classifier's raw outputs for a finished conversation."""
        ids = self._ids(conversation, fields, generate=False)
        with torch.inference_mode():
            return self._classifier(torch.tensor([ids])).logits[0].tolist()

    def _ids(self, prompt: Prompt, fields: Mapping[str, str], generate: bool = True) -> list[int]:
        safe = {name: self.tokens.safe(str(text)) for name, text in fields.items()}
        return self.tokens.encode(fill(prompt, safe), Rendering(generate=generate))

    @cached_property
    def _judge(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.folder).float().eval()

    @cached_property
    def _classifier(self) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(self.folder).float().eval()
