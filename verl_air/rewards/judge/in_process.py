"""A frozen judge read in the reward worker itself, without a server (``reward_kwargs.judge.in_process``).

For judges so small that starting a server (a minute and a half) costs more than reading them. Prompts, the proof of
their structure and the verdict words are the client's; only the forward pass is here. The log-odds are those of a
served copy (``tests/rewards/test_in_process_judge.py``).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards.judge.client import Fields, JudgeClient
from verl_air.rewards.judge.prompts import Prompt
from verl_air.rewards.judge.settings import JudgeSettings


class InProcessJudge(JudgeClient):
    """Reads log-odds from a model in this process, in float32 on the CPU.

    Raises:
        ConfigError: the folder holds no causal language model, or a method other than the log-odds is asked for.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        folder = settings.in_process
        if folder is None:
            raise ConfigError("judge.in_process: name the folder of the judge's model")
        self._reader = _load(folder)
        local = {
            "model": folder,
            "tokenizer": settings.tokenizer or folder,
            "max_prompt_tokens": settings.max_prompt_tokens or self._reader.longest,
        }
        super().__init__(settings.model_copy(update=local), router_address="in-process")

    async def _judge(
        self, model: str, prompts: Sequence[Prompt], positive: str, negative: str, fields: Fields, chat: bool
    ) -> list[float]:
        assert self._writer.tokens is not None
        words = self._writer.tokens.words(positive, negative)
        ids = [self._encode(prompt, fields, chat=chat) for prompt in prompts]
        return await asyncio.to_thread(lambda: [self._reader.log_odds(item, *words) for item in ids])

    async def _post(self, path: str, payload: dict[str, Any]) -> Any:
        raise ConfigError(
            f"judge.in_process reads log-odds only; this reward function asks for {path}: serve the judge instead"
        )


class _JudgeModel:
    """The model; one forward pass at a time."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise ConfigError(f"judge.in_process: cannot load {folder!r} ({error})") from error
        self._model = model.eval()
        self._one = threading.Lock()
        self.longest: int = model.config.max_position_embeddings

    def log_odds(self, ids: Sequence[Any], positive: Sequence[int], negative: Sequence[int]) -> float:
        """Log-odds (nats) of two sets of tokens as the next one; the softmax's denominator cancels."""
        import torch

        with self._one, torch.inference_mode():
            logits_V = self._model(torch.tensor([list(ids)])).logits[0, -1].double()
        first, second = (torch.logsumexp(logits_V[list(words)], 0) for words in (positive, negative))
        return float(first - second)


@cache
def _load(folder: str) -> _JudgeModel:
    """One copy per process."""
    return _JudgeModel(folder)
