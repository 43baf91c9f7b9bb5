"""A judge server that misbehaves. A real one cannot be made to do these things on demand, so a small one does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from verl_air.rewards import JudgeClient, JudgeSettings

QUICK = {"attempts": 3, "backoff_s": 0.01, "request_timeout_s": 10.0, "total_timeout_s": 60.0}
TEMPLATE = "Is {response} good?"
Handler = Callable[[web.Request, int], Awaitable[web.StreamResponse]]


def verdict(yes: float = -1.0, no: float = -2.0) -> dict[str, Any]:
    top = [{"token": "YES", "logprob": yes}, {"token": " NO", "logprob": no}, {"token": "maybe", "logprob": -9.0}]
    return {"choices": [{"index": 0, "message": {"content": "YES"}, "logprobs": {"content": [{"top_logprobs": top}]}}]}


class Misbehaving:
    """A server whose answers a test decides, by the number of the request."""

    def __init__(self) -> None:
        self.handler: Handler | None = None
        self.requests = 0
        self.busy = 0
        self.most_busy = 0
        self.healthy = True
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            assert self.handler is not None
            return await self.handler(request, self.requests)
        finally:
            self.busy -= 1


async def reply(value: Any, status: int = 200, **kwargs: Any) -> web.Response:
    return web.json_response(value, status=status, **kwargs)


def client(server: Misbehaving, **settings: Any) -> JudgeClient:
    return JudgeClient(JudgeSettings(base_url=server.url, **{**QUICK, **settings}))


async def ask(judge: JudgeClient, text: str = "it") -> float:
    return await judge.log_odds(TEMPLATE, "YES", "NO", fields={"response": text})
