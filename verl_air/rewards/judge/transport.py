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
    """Talks JSON with one server from one event loop; the session is opened by the first request."""

    def __init__(self, root: str, settings: JudgeSettings) -> None:
        self.root = root
        self._settings = settings
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
        raise JudgeError(f"{url}: {self._settings.attempts} attempts failed (last: {faults[-1]})")

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
