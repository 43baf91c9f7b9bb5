"""The client of served judges: verdicts by log-odds, free text, or a classifier's score.

A judge is verl's own reward model, or any OpenAI-compatible server by URL. Whatever goes wrong on the way raises
:class:`JudgeError`, and the row abstains; a judge's failure never becomes a number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards.judge import verdicts
from verl_air.rewards.judge.prompts import CHAT, ChatMessage, Fields, Prompt, PromptWriter, Rendering, Spellings
from verl_air.rewards.judge.settings import JudgeError, JudgeSettings
from verl_air.rewards.judge.store import VerdictCache
from verl_air.rewards.judge.transport import JudgeServer
from verl_air.rewards.judge.verdicts import WordReading, dig, final_text, is_finite

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"


class JudgeClient:
    """One judge, seen from one event loop; reward functions get it by naming a parameter ``judge``.

    In all methods ``prompt`` is a template of the recipe, which is trusted, and ``fields`` are the texts filled in,
    which are not: they are sanitized and cut, see :mod:`.prompts`. Put what several prompts share first, so that the
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
        self.server = JudgeServer(settings, router_address, needs_limit=tokenizer is not None)
        self._cache = _open_cache(settings.cache) if settings.cache else None

    async def log_odds(
        self, prompt: Prompt, positive: str, negative: str, *, fields: Fields = None, how: Rendering = CHAT
    ) -> float:
        """log P(positive) - log P(negative) as what follows the prompt.

        Args:
            prompt: a template; a string is one user message.
            positive, negative: the verdict words.
            fields: untrusted texts for the template.
            how: through the chat template, or the bare text.

        Raises:
            JudgeError: no verdict, or the words hold less than ``judge.min_mass`` of the probability.
            ConfigError: the judge's tokenizer cannot tell the words apart.
        """
        return (await self.log_odds_many([prompt], positive, negative, fields=fields, how=how))[0]

    async def log_odds_many(
        self, prompts: Sequence[Prompt], positive: str, negative: str, *, fields: Fields = None, how: Rendering = CHAT
    ) -> list[float]:
        """The log-odds after each of several prompts, sent together where the server allows it.

        Raises:
            JudgeError, ConfigError: see :meth:`log_odds`.
        """
        read = await self.log_probs(prompts, (positive, negative), fields=fields, how=how)
        return [first - second for first, second in read]

    async def log_probs(
        self, prompts: Sequence[Prompt], words: Sequence[str], *, fields: Fields = None, how: Rendering = CHAT
    ) -> list[list[float]]:
        """The log-prob of each word after each of several prompts, summed over its spellings.

        Raises:
            JudgeError, ConfigError: see :meth:`log_odds`.
        """
        await self.server.model()
        chat, tokens = self._writer.tokens is None and how.chat, self._writer.tokens
        spellings = tokens.spellings(words) if tokens and self.settings.vllm else None
        questions: list[Any] = [
            self._chat(self._writer.messages(prompt, fields, how), how) if chat else self._bare(how)
            for prompt in prompts
        ]
        if not chat:
            encoded = await self._encode(prompts, fields, how=how, reserve=_longest(spellings))
            questions = [{"prompt": ids, **bare} for ids, bare in zip(encoded, questions, strict=True)]

        async def ask(missing: list[int]) -> list[WordReading]:
            return await self._judge([questions[index] for index in missing], words, spellings)

        asked = ["words", spellings or words, self.settings.top_logprobs]
        found = await self._recalled([[*asked, question] for question in questions], ask)
        readings = [WordReading(*reading) for reading in found]
        for reading in readings:
            verdicts.require_mass(reading, words, self.settings.min_mass)
        return [reading.log_probs for reading in readings]

    async def complete(
        self, prompt: Prompt, *, fields: Fields = None, max_tokens: int = 256, how: Rendering = CHAT
    ) -> str:
        """What the judge writes after the prompt, at temperature 0: the text after its thought, or its final channel.

        Raises:
            JudgeError: no text, or it was cut, or the thought has no end.
        """
        model = await self.server.model()
        payload: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0.0}
        place: tuple[str, ...]
        if self._writer.tokens is None and how.chat:
            path, place = CHAT_PATH, ("message", "content")
            payload |= self._chat(self._writer.messages(prompt, fields, how), how)
        else:
            path, place = COMPLETIONS_PATH, ("text",)
            [encoded] = await self._encode([prompt], fields, how=how, reserve=max_tokens)
            payload |= {"prompt": encoded, **self._bare(how)}
            if self.settings.vllm:  # a thought's marks and channels may be special tokens
                payload["skip_special_tokens"] = False

        async def ask(_: list[int]) -> list[str]:
            answer = await self._post(path, {"model": model, **payload})
            return [final_text(answer, dig(answer, "choices", 0, *place))]

        return (await self._recalled([[path, payload]], ask))[0]

    async def classify(self, conversation: Prompt, *, fields: Fields = None) -> list[float]:
        """The raw outputs of a served classifier (vLLM's ``/classify``) for a finished conversation.

        Raises:
            JudgeError: no finite outputs.
        """
        model = await self.server.model()
        [encoded] = await self._encode([conversation], fields, how=Rendering(generate=False))
        payload = {"input": encoded, "use_activation": False}

        async def ask(_: list[int]) -> list[list[float]]:
            values = dig(await self._post("/classify", {"model": model, **payload}), "data", 0, "probs")
            if not isinstance(values, list) or not values or not all(map(is_finite, values)):
                raise JudgeError(f"the classifier's answer holds no finite outputs: {values!r}")
            return [values]

        return (await self._recalled([["/classify", payload]], ask))[0]

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a bare text, with the judge's tokenizer."""
        ids = self._writer.encode(text, None, None, how=Rendering(chat=False, bos=False))
        return ids if isinstance(ids, list) else []

    async def close(self) -> None:
        """Close the connections."""
        await self.server.close()

    async def _judge(
        self, questions: Sequence[dict[str, Any]], words: Sequence[str], spellings: Spellings | None
    ) -> list[WordReading]:
        """Log-probs that are not in the cache."""
        model, top, tokens = await self.server.model(), self.settings.top_logprobs, self._writer.tokens
        if "messages" in questions[0]:
            asked = [self._post(CHAT_PATH, {**verdicts.chat_question(model, [], top), **chat}) for chat in questions]
            return [verdicts.read_chat(answer, words) for answer in await asyncio.gather(*asked)]
        encoded = [question["prompt"] for question in questions]
        if spellings and _longest(spellings) > 1:
            answer = await self._post(COMPLETIONS_PATH, verdicts.continuation_question(model, encoded, spellings))
            return verdicts.read_continuations(answer, encoded, spellings)
        question = verdicts.completion_question(model, encoded, top, spellings)
        answer = await self._post(COMPLETIONS_PATH, {**questions[0], **question})
        read = verdicts.read_completions(answer, len(encoded), words, spellings)
        return [reading._replace(top=tokens.named(reading.top)) for reading in read] if tokens else read

    def _chat(self, messages: list[ChatMessage], how: Rendering) -> dict[str, Any]:
        """The part of a request to the chat endpoint that the server renders."""
        turns: list[Any] = [*messages, {"role": "assistant", "content": how.prefill}] if how.prefill else [*messages]
        extra = how.chat_fields(self.settings.chat_template_kwargs)
        if extra and not self.settings.vllm:
            raise ConfigError(
                f"this prompt needs {', '.join(extra)} of the chat endpoint, which judge.vllm=false leaves out"
            )
        return {"messages": turns, **extra}

    def _bare(self, how: Rendering) -> dict[str, Any]:
        """A bare text without BOS, where the server tokenizes it."""
        return {"add_special_tokens": False} if self._writer.tokens is None and not how.bos else {}

    async def _encode(self, prompts: Sequence[Prompt], fields: Fields, **how: Any) -> list[list[int] | str]:
        """In a thread: the first rows of a batch are sent while others are still encoded."""
        longest = self.server.max_prompt_tokens
        encode = partial(self._writer.encode, fields=fields, longest=longest, **how)
        return await asyncio.wrap_future(_ENCODER.submit(lambda: list(map(encode, prompts))))

    async def _post(self, path: str, payload: dict[str, Any]) -> Any:
        return await self.server.post(path, payload)

    async def _recalled(self, questions: Sequence[Any], ask: Callable[[list[int]], Awaitable[list[Any]]]) -> list[Any]:
        """Answers from the cache, and to the questions that it does not have from the judge."""
        if self._cache is None:
            return await ask(list(range(len(questions))))
        identity = await self.server.identity()
        keys = [VerdictCache.key(identity, question) for question in questions]
        found = await self._cache.get(keys)
        if missing := [index for index, value in enumerate(found) if value is None]:
            judged = dict(zip(missing, await ask(missing), strict=True))
            await self._cache.put({keys[index]: value for index, value in judged.items()})
            found = [judged.get(index, value) for index, value in enumerate(found)]
        return found


_ENCODER = ThreadPoolExecutor(1, thread_name_prefix="verl-air-encoder")  # one: tokenizers are not for several at once


def _longest(spellings: Spellings | None) -> int:
    """Tokens of the longest spelling that has to be read."""
    return max((len(ids) for each in spellings or () for ids in each), default=1)


_CLIENTS: dict[asyncio.AbstractEventLoop, dict[Any, JudgeClient]] = {}


def client_for(settings: JudgeSettings, router_address: str | None, tokenizer: Any) -> JudgeClient:
    """The client of the running event loop for these settings; made once."""
    loop = asyncio.get_running_loop()
    if loop not in _CLIENTS:
        for ended in [other for other in _CLIENTS if other.is_closed()]:
            del _CLIENTS[ended]
    clients = _CLIENTS.setdefault(loop, {})
    key = (settings.model_dump_json(), router_address, id(tokenizer))
    if key not in clients:
        clients[key] = make_client(settings, router_address, tokenizer)
    return clients[key]


def make_client(settings: JudgeSettings, router_address: str | None, tokenizer: Any) -> JudgeClient:
    """A client of its own, which the caller closes."""
    if settings.in_process is None:
        return JudgeClient(settings, router_address, tokenizer)
    from verl_air.rewards.judge.in_process import InProcessJudge  # a subclass of the client

    return InProcessJudge(settings)


async def close_clients() -> None:
    """Close the connections of the running event loop's clients, before the loop ends."""
    for client in _CLIENTS.pop(asyncio.get_running_loop(), {}).values():
        await client.close()


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
