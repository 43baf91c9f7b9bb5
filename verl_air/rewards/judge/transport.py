"""One judge server, seen from one event loop: requests bounded in number and time, retried with growing pauses.

aiohttp and not the `openai` client, which spends 1.3 ms of processor time per request instead of 0.5 and with 64 in
flight reached 0.92 of this throughput at 300 requests/s and 0.61 at 800 (median of 5 interleaved runs, openai 3.54).
Retries without tenacity: a pause that the server asks for holds for all requests, and takes none of their attempts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp

from verl_air.files import fingerprint
from verl_air.rewards.judge.settings import JudgeError, JudgeSettings
from verl_air.rewards.judge.store import Usage
from verl_air.rewards.judge.verdicts import dig
from verl_air.rewards.types import ThrottledLog

_MAX_PAUSE_S = 8.0
_RETRIED_REFUSALS = (408, 429)
_BUSY = (429, 503)
_CHARS_PER_TOKEN = 3  # at least, of ordinary text: an estimate that errs on the side of more tokens

log = ThrottledLog(logging.getLogger(__name__))


class _RetryError(Exception):
    """A fault that may pass."""


class _ToldToWaitError(Exception):
    """The server limits the rate."""


_PASSING = (_RetryError, aiohttp.ClientError, asyncio.TimeoutError, json.JSONDecodeError, UnicodeError)


class JudgeServer:
    """Talks JSON with one server; the session is opened by the first request.

    verl's router, if it is in between, turns every refusal of the server (4xx) into ``500``, which would be retried in
    vain: after two of them the server's health is asked, and if it is well, the request counts as refused.

    Args:
        settings: of the recipe.
        router_address: of verl's router, used unless the settings name a server.
        needs_limit: the length of prompts matters to the caller.

    Attributes:
        requests, tokens, prompt_tokens: answered so far, and what they used, as the server says or else estimated
            (``prompt_tokens``: as the server says).
    """

    def __init__(self, settings: JudgeSettings, router_address: str | None, needs_limit: bool) -> None:
        self._root = (settings.base_url or f"http://{router_address}").rstrip("/").removesuffix("/v1")
        self._settings = settings
        self._headers = settings.headers()
        self._free = asyncio.Semaphore(settings.max_concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._model = settings.model
        self.max_prompt_tokens = settings.max_prompt_tokens
        self._needs_card = self._model is None or (self.max_prompt_tokens is None and needs_limit)
        self._known = not self._needs_card and settings.cache is None  # the cache asks where the weights are
        self._path: str | None = None
        self._identity: tuple[str | None, ...] | None = None
        self._closed_until = 0.0
        self._usage = Usage(settings, f"{settings.model or 'judge'} at {self._root}") if settings.usage else None
        self.requests = self.tokens = self.prompt_tokens = 0
        self._asking = asyncio.Lock()

    async def model(self) -> str:
        """The model's name; after this, ``max_prompt_tokens`` is set if the server reports it.

        What the settings do not say is asked from ``GET /v1/models``, once.

        Raises:
            JudgeError: no answer, or no model in it.
        """
        if not self._known:
            async with self._asking:
                if not self._known:
                    try:
                        self._read_card(dig(await self._request("GET", "/v1/models"), "data"))
                    except JudgeError:
                        if self._needs_card:
                            raise
                        self._known = True  # a server that lists no models is known by its name
        return str(self._model)

    async def identity(self) -> Sequence[str | None]:
        """What tells this judge's weights from others: never its address, which changes with each start.

        A fingerprint of its folder if that is on this machine, else name, path at the server and revision.
        """
        model = await self.model()
        if self._identity is None:
            folder = next((Path(name) for name in (self._path, model) if name and Path(name).is_dir()), None)
            if folder is not None:
                self._identity = (await asyncio.to_thread(fingerprint, folder),)
            else:
                self._identity = (model, self._path, self._settings.revision)
        return self._identity

    def _read_card(self, models: Any) -> None:
        cards = [card for card in models if isinstance(card, Mapping)] if isinstance(models, list) else []
        card = next((card for card in cards if self._model in (None, card.get("id"))), {})
        if self._model is None and not isinstance(card.get("id"), str):
            raise JudgeError(f"{self._root}/v1/models names no model: {models!r}")
        self._model = self._model or card["id"]
        self._path = card["root"] if isinstance(card.get("root"), str) else None
        if self.max_prompt_tokens is None and isinstance(card.get("max_model_len"), int):
            self.max_prompt_tokens = card["max_model_len"]
        self._known = True

    async def post(self, path: str, payload: dict[str, Any]) -> Any:
        """Send a request and return the decoded answer. Its time starts when it may be sent.

        Raises:
            JudgeError: refused, or no usable answer within the attempts and the time allowed.
        """
        return await self._request("POST", path, payload)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(self, method: str, path: str, payload: dict[str, Any] | None = None) -> Any:
        """Attempts until one is answered or the time is up, of which pauses that the server asks for use none."""
        url, settings, clock = self._root + path, self._settings, asyncio.get_running_loop().time
        faults: list[str] = []
        async with self._free:
            end, patience = clock() + settings.total_timeout_s, settings.total_timeout_s
            while len(faults) < settings.attempts:
                pause = self._closed_until - clock()
                if pause > 0.0:
                    patience -= pause
                    if patience < 0.0:
                        raise JudgeError(f"{url}: the server asks to wait {pause:.0f} s, above judge.total_timeout_s")
                    pause *= random.uniform(1.0, 1.1)  # with jitter, so that requests do not come back together
                    end += pause
                elif faults:
                    pause = min(_MAX_PAUSE_S, settings.backoff_s * 2 ** (len(faults) - 1)) * random.uniform(0.5, 1.0)
                if pause > 0.0:
                    await asyncio.sleep(min(pause, end - clock()))
                try:
                    return await asyncio.wait_for(self._attempt(method, url, payload), max(0.0, end - clock()))
                except _ToldToWaitError:
                    continue
                except _PASSING as e:
                    if clock() >= end:
                        last = faults[-1] if faults else "no answer"
                        limit = settings.total_timeout_s
                        raise JudgeError(f"{url}: no verdict within {limit:g} s (last: {last})") from None
                    faults.append(str(e) if isinstance(e, _RetryError) else f"{type(e).__name__}: {e}")
                if len(faults) == 2 and await self._refused(faults):
                    raise JudgeError(f"{url}: the judge's server is up and refuses this request. {_causes(payload)}")
        raise JudgeError(f"{url}: {settings.attempts} attempts failed (last: {faults[-1]})")

    async def _attempt(self, method: str, url: str, payload: dict[str, Any] | None) -> Any:
        """One request; whatever is worth another is raised as an error of its own."""
        expected = 0 if payload is None else _most_tokens(payload)
        if self._usage is not None and payload is not None:
            await self._usage.take(expected)
        async with self._opened().request(method, url, json=payload) as response:
            if response.status < 400:
                answer = json.loads(await response.read())
                if payload is not None:
                    await self._count(answer, expected)
                return answer
            if response.status in _BUSY and (pause := _pause_asked_for(response.headers.get("Retry-After"))):
                self._closed_until = max(self._closed_until, asyncio.get_running_loop().time() + pause)
                log.warning(url, f"{url}: HTTP {response.status}, the server asks to wait {pause:.0f} s")
                raise _ToldToWaitError
            fault = f"HTTP {response.status}: {(await response.text(errors='replace'))[:200]}"
            if response.status < 500 and response.status not in _RETRIED_REFUSALS:
                raise JudgeError(f"{url}: {fault}")
            raise _RetryError(fault)

    async def _count(self, answer: Any, expected: int) -> None:
        self.requests += 1
        total, prompt = dig(answer, "usage", "total_tokens"), dig(answer, "usage", "prompt_tokens")
        self.tokens += total if isinstance(total, int) else expected
        self.prompt_tokens += prompt if isinstance(prompt, int) else 0
        if self._usage is not None and isinstance(total, int) and total != expected:
            await self._usage.correct(total - expected)

    async def _refused(self, faults: list[str]) -> bool:
        """Whether verl's router answered 500 each time although the server behind it is well."""
        if self._settings.base_url is not None or not all(fault.startswith("HTTP 500") for fault in faults):
            return False
        try:
            async with self._opened().get(f"{self._root}/health") as response:
                return response.status < 400
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return False

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._settings.request_timeout_s),
                connector=aiohttp.TCPConnector(limit=self._settings.max_concurrency),
                # verl's own server is never behind the machine's proxy; a server named by URL may be.
                trust_env=self._settings.base_url is not None,
            )
        return self._session


def _pause_asked_for(header: str | None) -> float:
    """Seconds that ``Retry-After`` asks for, a number or a date; 0 if it says nothing."""
    if header is None:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def _most_tokens(payload: Mapping[str, Any]) -> int:
    """What a request may use at most: its prompts, exact or estimated, and its answers."""
    sent = payload.get("prompt", payload.get("input"))
    prompts = sent if isinstance(sent, list) and sent and not isinstance(sent[0], int) else [sent]
    if "messages" in payload:
        prompts = [json.dumps(payload["messages"])]
    lengths = [len(p) if isinstance(p, list) else -(-len(str(p)) // _CHARS_PER_TOKEN) for p in prompts]
    return sum(lengths) + len(prompts) * int(payload.get("max_tokens", 0))


def _causes(payload: dict[str, Any] | None) -> str:
    """What a server refuses, with the length of what was sent."""
    sent = (payload or {}).get("prompt", (payload or {}).get("input"))
    prompts = sent if isinstance(sent, list) and sent and isinstance(sent[0], list) else [sent]
    lengths = [len(prompt) for prompt in prompts if isinstance(prompt, list)]
    longest = f" (the longest sent has {max(lengths)} tokens)" if lengths else ""
    return (
        "verl's router hides the reason; see the server's log. Likely: prompt and answer longer than the judge's "
        f"max_model_len{longest}, or an endpoint that this kind of model does not have (/classify is a classifier's, "
        "log-odds and text are a language model's)."
    )
