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
from verl_air.rewards.judge.answers import by_id, by_word, chat_logprobs, difference, dig, is_finite
from verl_air.rewards.judge.cache import VerdictCache
from verl_air.rewards.judge.errors import JudgeError
from verl_air.rewards.judge.prompts import Message, Prompt, cut, fill, neutralise
from verl_air.rewards.judge.settings import JudgeSettings
from verl_air.rewards.judge.tokens import JudgeTokenizer
from verl_air.rewards.judge.transport import Transport

_SHORTEST_CUT = 32


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
        self._tokens = None if tokenizer is None else JudgeTokenizer(tokenizer, settings.chat_template_kwargs)
        root = (settings.base_url or f"http://{router_address}").rstrip("/").removesuffix("/v1")
        self._transport = Transport(root, settings)
        self._cache = _open_cache(settings.cache) if settings.cache else None
        self._model: str | None = settings.model
        self._max_tokens = settings.max_prompt_tokens
        self._asked = False
        self._asking = asyncio.Lock()

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
        model = await self._ask_model()
        messages = [self._render(prompt, fields) for prompt in prompts]
        keys = [VerdictCache.key(model, self._max_tokens, chat, item, positive, negative) for item in messages]
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
        model = await self._ask_model()
        messages = self._render(prompt, fields)
        key = VerdictCache.key(model, self._max_tokens, chat, messages, max_tokens)
        if (known := self._recall(key)) is not None:
            return known
        payload: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": 0.0}
        if self._tokens is not None:
            payload["prompt"] = self._encode(prompt, fields, chat, reserve=max_tokens)
        if self._tokens is None and chat:
            answer = await self._post("/v1/chat/completions", {**payload, "messages": messages})
            text = dig(answer, "choices", 0, "message", "content")
        else:
            payload.setdefault("prompt", _bare(messages))
            text = dig(await self._post("/v1/completions", payload), "choices", 0, "text")
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
        model = await self._ask_model()
        rendered = self._render(messages, fields)
        key = VerdictCache.key(model, self._max_tokens, "classify", raw, rendered)
        if (known := self._recall(key)) is not None:
            return known
        text: Any = _bare(rendered)
        if self._tokens is not None:
            text = self._encode(messages, fields, True, generate=False)
        answer = await self._post("/classify", {"model": model, "input": text, "use_activation": not raw})
        values = dig(answer, "data", 0, "probs")
        if not isinstance(values, list) or not values or not all(is_finite(value) for value in values):
            raise JudgeError(f"the classifier's answer holds no finite outputs: {values!r}")
        self._remember(key, values)
        return values

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.close()

    # -- prompts ------------------------------------------------------------------------------------------------------

    def _render(self, prompt: Prompt, fields: Mapping[str, str] | None, max_chars: int | None = None) -> list[Message]:
        safe = self._tokens.safe if self._tokens else neutralise
        limit = max_chars or self.settings.max_chars
        return fill(prompt, {name: cut(safe(str(text)), limit) for name, text in (fields or {}).items()})

    def _encode(
        self, prompt: Prompt, fields: Mapping[str, str] | None, chat: bool, reserve: int = 1, generate: bool = True
    ) -> list[int]:
        """Token ids of a prompt, its untrusted texts cut to ever shorter ones until it fits."""
        assert self._tokens is not None
        limit = self.settings.max_chars
        while True:
            ids = self._tokens.encode(self._render(prompt, fields, limit), chat, generate)
            if self._max_tokens is None or len(ids) + reserve <= self._max_tokens:
                self._tokens.check_structure(ids, prompt, chat, generate)
                return ids
            if not fields or limit <= _SHORTEST_CUT:
                raise JudgeError(
                    f"the judge's prompt has {len(ids)} tokens and only {self._max_tokens - reserve} fit; "
                    "shorten the template or serve the judge with a larger max_model_len"
                )
            longest = max(len(str(text)) for text in fields.values())
            limit = min(limit, longest) // 2

    # -- verdicts -----------------------------------------------------------------------------------------------------

    async def _judge(
        self, prompts: Sequence[Prompt], positive: str, negative: str, fields: Mapping[str, str] | None, chat: bool
    ) -> list[float]:
        payload: dict[str, Any] = {"model": await self._ask_model(), "max_tokens": 1, "temperature": 0.0}
        if self._tokens is None and chat:
            payload |= {"logprobs": True, "top_logprobs": self.settings.top_logprobs}
            answers = await asyncio.gather(
                *(
                    self._post("/v1/chat/completions", {**payload, "messages": self._render(prompt, fields)})
                    for prompt in prompts
                )
            )
            found = [chat_logprobs(dig(a, "choices", 0, "logprobs", "content", 0, "top_logprobs")) for a in answers]
            return [difference(logprobs, by_word(positive), by_word(negative)) for logprobs in found]
        payload["logprobs"] = self.settings.top_logprobs
        match_positive, match_negative = by_word(positive), by_word(negative)
        if self._tokens is None:
            payload["prompt"] = [_bare(self._render(prompt, fields)) for prompt in prompts]
        else:
            payload["prompt"] = [self._encode(prompt, fields, chat) for prompt in prompts]
            if self.settings.vllm:
                ids_positive, ids_negative = self._tokens.variants(positive), self._tokens.variants(negative)
                if set(ids_positive) & set(ids_negative):
                    raise ConfigError(
                        f"the verdict words {positive!r} and {negative!r} are one token of the judge's tokenizer"
                    )
                wanted = [*ids_positive, *ids_negative]
                # A vLLM that does not know `logprob_token_ids` ignores it; then `allowed_token_ids` puts the verdict
                # tokens at the top of processed log-probs (verl's default), which leaves their difference as it was.
                payload |= {
                    "logprob_token_ids": wanted,
                    "allowed_token_ids": wanted,
                    "return_tokens_as_token_ids": True,
                }
                match_positive, match_negative = by_id(ids_positive), by_id(ids_negative)
        choices = dig(await self._post("/v1/completions", payload), "choices")
        by_index = {dig(choice, "index"): choice for choice in choices} if isinstance(choices, list) else {}
        return [
            difference(dig(by_index, index, "logprobs", "top_logprobs", 0), match_positive, match_negative)
            for index in range(len(prompts))
        ]

    # -- the server ---------------------------------------------------------------------------------------------------

    async def _post(self, path: str, payload: dict[str, Any]) -> Any:
        return await self._transport.request("POST", path, payload)

    async def _ask_model(self) -> str:
        """The model's name, and how long its prompts may be: asked once."""
        if self._asked or (self._model is not None and (self._max_tokens is not None or self._tokens is None)):
            return str(self._model)
        async with self._asking:
            if not self._asked:
                models = dig(await self._transport.request("GET", "/v1/models"), "data")
                cards = [card for card in models if isinstance(card, Mapping)] if isinstance(models, list) else []
                card = next((card for card in cards if self._model in (None, card.get("id"))), {})
                if self._model is None and not isinstance(card.get("id"), str):
                    raise JudgeError(f"{self._transport.root}/v1/models names no model: {models!r}")
                self._model = self._model or card["id"]
                if self._max_tokens is None and isinstance(card.get("max_model_len"), int):
                    self._max_tokens = card["max_model_len"]
                self._asked = True
        return str(self._model)

    def _recall(self, key: bytes) -> Any:
        return None if self._cache is None else self._cache.get(key)

    def _remember(self, key: bytes, value: Any) -> None:
        if self._cache is not None:
            self._cache.put(key, value)


def _bare(messages: Sequence[Message]) -> str:
    return "\n".join(message["content"] for message in messages)


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
