"""A frozen judge read in the reward worker itself, without a server (``reward_kwargs.judge.in_process``).

For judges so small that starting a server (a minute and a half) costs more than reading them. Prompts, the proof of
their structure and the verdict words are the client's; only the forward pass is here. The log-odds are those of a
served copy (``tests/rewards/test_in_process_judge.py``).
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards.judge.client import JudgeClient
from verl_air.rewards.judge.prompts import Spellings
from verl_air.rewards.judge.settings import JudgeSettings
from verl_air.rewards.judge.verdicts import WordReading, reading_of

_BATCH = 16  # suffixes in one pass, which bounds the copies of the prefix's key-value cache


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
        self, questions: Sequence[dict[str, Any]], words: Sequence[str], spellings: Spellings | None
    ) -> list[WordReading]:
        assert self._writer.tokens is not None
        ids = [question["prompt"] for question in questions]
        read = await asyncio.to_thread(self._reader.read, ids, spellings or self._writer.tokens.spellings(words))
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

    def read(self, prompts: Sequence[list[int]], words: Spellings) -> list[WordReading]:
        """The log-probs of words as what follows each prompt; what all prompts begin with is read once."""
        longer = {tokens for spellings in words for tokens in spellings if len(tokens) > 1}
        leaves = [(ids, tokens) for ids in prompts for tokens in ((), *longer)]
        with self._one:
            rows = dict(zip([(id(ids), tokens) for ids, tokens in leaves], self._log_probs(leaves), strict=True))
        readings = []
        for ids in prompts:
            next_V = rows[id(ids), ()][0]
            spelled = [
                [
                    sum(float(row_V[token]) for row_V, token in zip(rows[id(ids), tokens], tokens, strict=True))
                    if len(tokens) > 1
                    else float(next_V[tokens[0]])
                    for tokens in spellings
                ]
                for spellings in words
            ]
            values, tokens = next_V.topk(5)
            top = zip(tokens.tolist(), values.exp().tolist(), strict=True)
            readings.append(reading_of(spelled, ", ".join(f"'token_id:{token}' {value:.2g}" for token, value in top)))
        return readings

    def _log_probs(self, leaves: Sequence[tuple[list[int], tuple[int, ...]]]) -> list[Any]:
        """Log-probs [len(continuation) or 1, V] of the tokens of each continuation after its prompt.

        The shared prefix is one pass, whose key-value cache serves all that follows it. Suffixes are padded at their
        end, where a causal model does not see it.
        """
        import torch

        prompts = [ids for ids, _ in leaves]
        columns = enumerate(zip(*(ids[:-1] for ids in prompts), strict=False))
        differing = (place for place, column in columns if len(set(column)) > 1)
        shared = next(differing, min(map(len, prompts)) - 1) if len(leaves) > 1 else 0
        found: list[Any] = []
        with torch.inference_mode():
            prefix = None
            if shared:
                head = torch.tensor([prompts[0][:shared]])
                prefix = self._model(head, use_cache=True, logits_to_keep=1).past_key_values
            for start in range(0, len(leaves), _BATCH):
                part = leaves[start : start + _BATCH]
                suffixes = [[*ids[shared:], *tokens[:-1]] for ids, tokens in part]
                length = max(map(len, suffixes))
                ids_BT = torch.tensor([[*suffix, *[0] * (length - len(suffix))] for suffix in suffixes])
                places = [range(len(s) - max(len(t), 1), len(s)) for s, (_, t) in zip(suffixes, part, strict=True)]
                kept = sorted(set().union(*places))
                past = copy.deepcopy(prefix)
                if past is not None:
                    past.batch_repeat_interleave(len(part))
                answer = self._model(
                    ids_BT, past_key_values=past, use_cache=past is not None, logits_to_keep=torch.tensor(kept)
                )
                for logits_KV, own in zip(answer.logits, places, strict=True):
                    found.append(logits_KV[[kept.index(place) for place in own]].double().log_softmax(-1))
        return found


@cache
def _load(folder: str) -> _JudgeModel:
    """One copy per process."""
    return _JudgeModel(folder)
