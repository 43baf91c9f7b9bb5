"""A judge server that misbehaves, since a real one cannot be made to on demand; and a registry of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from verl_air.rewards import JudgeClient, JudgeSettings, registry
from verl_air.rewards.judge import close_clients

QUICK = {"attempts": 3, "backoff_s": 0.01, "request_timeout_s": 10.0, "total_timeout_s": 60.0}
TEMPLATE = "Is {response} good?"
Handler = Callable[[web.Request, int], Awaitable[web.StreamResponse]]


def verdict(yes: float = -1.0, no: float = -2.0, words: tuple[str, str] = ("YES", " NO")) -> dict[str, Any]:
    logprobs = {words[0]: yes, words[1]: no, "maybe": -9.0}
    top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    return {"choices": [{"index": 0, "message": {"content": "YES"}, "logprobs": {"content": [{"top_logprobs": top}]}}]}


class Misbehaving:
    """A server whose answers a test decides, by the number of the request."""

    def __init__(self) -> None:
        self.handler: Handler = lambda request, n: reply(verdict())
        self.requests = self.busy = self.most_busy = 0
        self.healthy = True
        self.card: dict[str, Any] = {"id": "judge"}
        self.url = ""
        self.clients: list[JudgeClient] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            return await self.handler(request, self.requests)
        finally:
            self.busy -= 1

    def client(self, router: str | None = None, **settings: Any) -> JudgeClient:
        """A client of this server, by URL or as if the server were verl's router; closed after the test."""
        url = {} if router else {"base_url": self.url}
        self.clients.append(JudgeClient(JudgeSettings(**{**url, **QUICK, **settings}), router))
        return self.clients[-1]

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://").removesuffix("/v1")


async def reply(value: Any, status: int = 200) -> web.Response:
    return web.json_response(value, status=status)


async def ask(judge: JudgeClient, text: str = "it") -> float:
    return await judge.log_odds(TEMPLATE, "YES", "NO", fields={"response": text})


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    import verl_air.playground.rewards  # noqa: F401 - first imported during a test, its names would be gone too

    registry.reward_names()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Misbehaving]:
    state = Misbehaving()
    app = web.Application()
    app.router.add_get("/v1/models", lambda _: reply({"data": [state.card]}))
    app.router.add_get("/health", lambda _: reply({}, 200 if state.healthy else 500))
    app.router.add_post("/v1/chat/completions", state.answer)
    app.router.add_post("/v1/completions", state.answer)
    app.router.add_post("/tokenize", state.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield state
    await close_clients()
    for judge in state.clients:
        await judge.close()
    await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Misbehaving]:
    async with served() as state:
        yield state


@pytest.fixture
async def second() -> AsyncIterator[Misbehaving]:
    async with served() as state:
        yield state
