"""The client of served judges: verdicts by log-odds, free text, or a classifier's score.

A judge is verl's own reward model, or any OpenAI-compatible server by URL. Whatever goes wrong on the way raises
:class:`JudgeError`, and the row abstains; a judge's failure never becomes a number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards.judge import log_odds
from verl_air.rewards.judge.answers import dig, is_finite
from verl_air.rewards.judge.cache import VerdictCache
from verl_air.rewards.judge.errors import JudgeError
from verl_air.rewards.judge.prompts import Prompt
from verl_air.rewards.judge.server import JudgeServer
from verl_air.rewards.judge.settings import JudgeSettings
from verl_air.rewards.judge.writer import PromptWriter


class JudgeClient:
    """One judge, seen from one event loop; reward functions get it by naming a parameter ``judge``.

    In all methods ``prompt`` is a template of the recipe, which is trusted, and ``fields`` are the texts filled in,
    which are not: they are neutralised and cut, see :mod:`.prompts`. Put what several prompts share first, so that the
    server's prefix cache has to read it once.

    Raises:
        ConfigError: there is no server, or no key in the environment.
    """

    def __init__(self, settings: JudgeSettings, router_address: str | None = None, tokenizer: Any = None) -> None:
        if settings.base_url is None and router_address is None:
            raise ConfigError(
                "this route needs a judge: serve one (reward.reward_model.enable=True) or name one (judge.base_url)"
            )
        if settings.tokenizer is not None:
            tokenizer = _load_tokenizer(settings.tokenizer)
        elif settings.base_url is not None:
            tokenizer = None  # verl's tokenizer belongs to verl's reward model
        self.settings = settings
        self._writer = PromptWriter(tokenizer, settings.chat_template_kwargs, settings.max_chars)
        self._server = JudgeServer(settings, router_address, needs_limit=tokenizer is not None)
        self._cache = _open_cache(settings.cache) if settings.cache else None

    async def log_odds(
        self,
        prompt: Prompt,
        positive: str,
        negative: str,
        *,
        fields: Mapping[str, str] | None = None,
        chat: bool = True,
    ) -> float:
        """log P(positive) - log P(negative) as the next token after the prompt.

        Args:
            prompt: a template; a string is one user message.
            positive, negative: the verdict words, single tokens of the judge's tokenizer.
            fields: untrusted texts for the template.
            chat: through the chat template; if false, the bare text is completed.

        Raises:
            JudgeError: no verdict.
            ConfigError: a verdict word is not a single token.
        """
        return (await self.log_odds_many([prompt], positive, negative, fields=fields, chat=chat))[0]

    async def log_odds_many(
        self,
        prompts: Sequence[Prompt],
        positive: str,
        negative: str,
        *,
        fields: Mapping[str, str] | None = None,
        chat: bool = True,
    ) -> list[float]:
        """The log-odds after each of several prompts, sent together where the server allows it.

        Raises:
            JudgeError, ConfigError: see :meth:`log_odds`.
        """
        model = await self._server.model()
        messages = [self._writer.messages(prompt, fields) for prompt in prompts]
        keys = [self._key(model, chat, item, positive, negative) for item in messages]
        found = [self._recall(key) for key in keys]
        missing = [index for index, value in enumerate(found) if value is None]
        if missing:
            values = await self._judge([prompts[i] for i in missing], positive, negative, fields, chat)
            for index, value in zip(missing, values, strict=True):
                found[index] = value
                self._remember(keys[index], value)
        return found

    async def complete(
        self, prompt: Prompt, *, fields: Mapping[str, str] | None = None, max_tokens: int = 256, chat: bool = True
    ) -> str:
        """What the judge writes after the prompt, at temperature 0.

        Raises:
            JudgeError: no text.
        """
        model = await self._server.model()
        messages = self._writer.messages(prompt, fields)
        key = self._key(model, chat, messages, max_tokens)
        if (known := self._recall(key)) is not None:
            return known
        payload: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": 0.0}
        if self._writer.tokens is None and chat:
            answer = await self._post(log_odds.CHAT, {**payload, "messages": messages})
            text = dig(answer, "choices", 0, "message", "content")
        else:
            payload["prompt"] = self._encode(prompt, fields, chat=chat, reserve=max_tokens)
            text = dig(await self._post(log_odds.COMPLETIONS, payload), "choices", 0, "text")
        if not isinstance(text, str):
            raise JudgeError(f"the judge's answer holds no text: {text!r}")
        self._remember(key, text)
        return text

    async def classify(
        self, messages: Prompt, *, fields: Mapping[str, str] | None = None, raw: bool = True
    ) -> list[float]:
        """The outputs of a served classifier (vLLM's ``/classify``) for a finished conversation.

        Args:
            messages: the conversation, as a template.
            fields: untrusted texts for the template.
            raw: the outputs themselves, not their softmax or sigmoid.

        Raises:
            JudgeError: no finite outputs.
        """
        model = await self._server.model()
        key = self._key(model, "classify", raw, self._writer.messages(messages, fields))
        if (known := self._recall(key)) is not None:
            return known
        text = self._encode(messages, fields, generate=False)
        answer = await self._post("/classify", {"model": model, "input": text, "use_activation": not raw})
        values = dig(answer, "data", 0, "probs")
        if not isinstance(values, list) or not values or not all(is_finite(value) for value in values):
            raise JudgeError(f"the classifier's answer holds no finite outputs: {values!r}")
        self._remember(key, values)
        return values

    async def close(self) -> None:
        """Close the connection."""
        await self._server.close()

    async def _judge(
        self, prompts: Sequence[Prompt], positive: str, negative: str, fields: Mapping[str, str] | None, chat: bool
    ) -> list[float]:
        """Log-odds that are not remembered."""
        model, top = await self._server.model(), self.settings.top_logprobs
        if self._writer.tokens is None and chat:
            messages = [self._writer.messages(prompt, fields) for prompt in prompts]
            asked = [self._post(log_odds.CHAT, log_odds.chat_question(model, item, top)) for item in messages]
            return [log_odds.read_chat(answer, positive, negative) for answer in await asyncio.gather(*asked)]
        encoded = [self._encode(prompt, fields, chat=chat) for prompt in prompts]
        known = self._writer.tokens is not None and self.settings.vllm
        words = self._writer.words(positive, negative) if known else None
        answer = await self._post(log_odds.COMPLETIONS, log_odds.question(model, encoded, top, words))
        return log_odds.read(answer, len(prompts), positive, negative, words)

    def _encode(self, prompt: Prompt, fields: Mapping[str, str] | None, **how: Any) -> Any:
        """Token ids if the tokenizer is known, otherwise the bare text."""
        if self._writer.tokens is None:
            return self._writer.text(prompt, fields)
        return self._writer.ids(prompt, fields, longest=self._server.max_prompt_tokens, **how)

    async def _post(self, path: str, payload: dict[str, Any]) -> Any:
        return await self._server.post(path, payload)

    def _key(self, model: str, *parts: Any) -> bytes:
        return VerdictCache.key(model, self._server.max_prompt_tokens, *parts)

    def _recall(self, key: bytes) -> Any:
        return None if self._cache is None else self._cache.get(key)

    def _remember(self, key: bytes, value: Any) -> None:
        if self._cache is not None:
            self._cache.put(key, value)


@cache
def _load_tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"judge.tokenizer: cannot load {path!r} ({error})") from error


@cache
def _open_cache(path: str) -> VerdictCache:
    return VerdictCache(path)
