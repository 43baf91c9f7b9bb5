"""Requests to a judge server: one session, bounded in number and time, retried with growing pauses."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import aiohttp

from verl_air.rewards.judge.errors import JudgeError
from verl_air.rewards.judge.settings import JudgeSettings

_MAX_PAUSE_S = 8.0
_RETRIED_REFUSALS = (408, 429)


class Transport:
    """Talks JSON with one server from one event loop; the session is opened by the first request.

    Args:
        root: ``"http://host:port"``.
        settings: of the recipe.
        hides_refusals: verl's router is in between. It turns every refusal of the server (4xx) into ``500``, which
            would be retried in vain: after two of them it is asked whether the server is up, and if it is, the request
            is taken for refused.
    """

    def __init__(self, root: str, settings: JudgeSettings, hides_refusals: bool = False) -> None:
        self.root = root
        self._settings = settings
        self._hides_refusals = hides_refusals
        self._headers = settings.headers()
        self._free = asyncio.Semaphore(settings.max_concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def request(self, method: str, path: str, payload: dict[str, Any] | None = None) -> Any:
        """Send a request and return the decoded answer. The clock starts when a place is free.

        Raises:
            JudgeError: refused, or no usable answer within the attempts and the time allowed.
        """
        faults: list[str] = []
        async with self._free:
            try:
                return await asyncio.wait_for(
                    self._attempts(method, self.root + path, payload, faults), self._settings.total_timeout_s
                )
            except asyncio.TimeoutError:
                last = faults[-1] if faults else "no answer"
                raise JudgeError(
                    f"{self.root}{path}: no verdict within {self._settings.total_timeout_s:g} s (last: {last})"
                ) from None

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _attempts(self, method: str, url: str, payload: dict[str, Any] | None, faults: list[str]) -> Any:
        for attempt in range(self._settings.attempts):
            if attempt:
                await asyncio.sleep(self._pause(attempt))
            try:
                async with self._opened().request(method, url, json=payload) as response:
                    if response.status < 400:
                        return json.loads(await response.read())
                    faults.append(f"HTTP {response.status}: {(await response.text(errors='replace'))[:200]}")
                    if response.status < 500 and response.status not in _RETRIED_REFUSALS:
                        raise JudgeError(f"{url}: {faults[-1]}")
            except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:  # ValueError: the body is not JSON
                faults.append(f"{type(error).__name__}: {error}")
            if self._hides_refusals and len(faults) == 2 and await self._refused(faults):
                raise JudgeError(f"{url}: the judge's server is up and refuses this request. {_likely_causes(payload)}")
        raise JudgeError(f"{url}: {self._settings.attempts} attempts failed (last: {faults[-1]})")

    async def _refused(self, faults: list[str]) -> bool:
        """Whether verl's router answered 500 each time although the server behind it is well."""
        if not all(fault.startswith("HTTP 500") for fault in faults):
            return False
        try:
            async with self._opened().get(f"{self.root}/health") as response:
                return response.status < 400
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return False

    def _pause(self, attempt: int) -> float:
        """Seconds before an attempt: doubled each time, with jitter, so that workers do not come back together."""
        longest = min(_MAX_PAUSE_S, self._settings.backoff_s * 2 ** (attempt - 1))
        return longest * random.uniform(0.5, 1.0)

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


def _likely_causes(payload: dict[str, Any] | None) -> str:
    """What a server refuses, with the length of what was sent."""
    sent = (payload or {}).get("prompt", (payload or {}).get("input"))
    prompts = sent if isinstance(sent, list) and sent and isinstance(sent[0], list) else [sent]
    lengths = [len(prompt) for prompt in prompts if isinstance(prompt, list)]
    longest = f" (the longest sent has {max(lengths)} tokens)" if lengths else ""
    return (
        "verl's router hides the reason; the server's log tells it. Likely: prompt and answer longer than the judge's "
        f"max_model_len{longest}, or an endpoint that this kind of model does not have (/classify is a classifier's, "
        "log-odds and text are a language model's)."
    )
