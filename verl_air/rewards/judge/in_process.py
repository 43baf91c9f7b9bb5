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
from verl_air.rewards.judge.prompts import Prompt, Rendering, Spellings
from verl_air.rewards.judge.settings import JudgeSettings
from verl_air.rewards.judge.verdicts import WordReading, reading_of


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
        self, model: str, prompts: Sequence[Prompt], words: Sequence[str], fields: Fields, how: Rendering
    ) -> list[WordReading]:
        assert self._writer.tokens is not None
        spellings = self._writer.tokens.spellings(words)
        ids = [list(map(int, self._encode(prompt, fields, how=how))) for prompt in prompts]
        read = await asyncio.to_thread(lambda: [self._reader.read(item, spellings) for item in ids])
        return [reading._replace(top=self._writer.tokens.named(reading.top)) for reading in read]

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

    def read(self, ids: list[int], words: Spellings) -> WordReading:
        """The log-probs of words as what follows; a pass per spelling of several tokens, one for all others."""
        with self._one:
            next_V, _ = self._pass(ids, ())
            spelled = [
                [float(next_V[tokens[0]]) if len(tokens) == 1 else self._pass(ids, tokens)[1] for tokens in spellings]
                for spellings in words
            ]
            values, tokens = next_V.topk(5)
        top = zip(tokens.tolist(), values.exp().tolist(), strict=True)
        return reading_of(spelled, ", ".join(f"'token_id:{token}' {value:.2g}" for token, value in top))

    def _pass(self, ids: list[int], continuation: Sequence[int]) -> tuple[Any, float]:
        """Log-probs [V] of the token after ``ids``, and the log-prob of a continuation."""
        import torch

        with torch.inference_mode():
            logits_TV = self._model(torch.tensor([[*ids, *continuation]])).logits[0, len(ids) - 1 :].double()
        log_prob_TV = logits_TV.log_softmax(-1)
        return log_prob_TV[0], sum(float(row_V[token]) for row_V, token in zip(log_prob_TV, continuation, strict=False))


@cache
def _load(folder: str) -> _JudgeModel:
    """One copy per process."""
    return _JudgeModel(folder)
