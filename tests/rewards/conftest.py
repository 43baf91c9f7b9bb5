"""A server that misbehaves, for the tests of the judge's client and cache."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.rewards.misbehaving import Misbehaving, reply
from verl_air.rewards.judge import close_clients


@pytest.fixture
async def server() -> AsyncIterator[Misbehaving]:
    state = Misbehaving()
    app = web.Application()
    app.router.add_get("/v1/models", lambda _: reply({"data": [{"id": "judge"}]}))
    app.router.add_get("/health", lambda _: reply({}, 200 if state.healthy else 500))
    app.router.add_post("/v1/chat/completions", state.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield state
    await close_clients()
    await runner.cleanup()
