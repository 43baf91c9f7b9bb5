"""One client for all calls of an event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from verl_air.rewards.judge.client import JudgeClient
from verl_air.rewards.judge.in_process import InProcessJudge
from verl_air.rewards.judge.settings import JudgeSettings

_CLIENTS: dict[Any, dict[Any, JudgeClient]] = {}


def client_for(settings: JudgeSettings, router_address: str | None, tokenizer: Any) -> JudgeClient:
    """The client of the running event loop for these settings; made once."""
    loop = asyncio.get_running_loop()
    if loop not in _CLIENTS:
        for ended in [other for other in _CLIENTS if other.is_closed()]:
            del _CLIENTS[ended]
    clients = _CLIENTS.setdefault(loop, {})
    key = (settings, router_address, id(tokenizer))
    if key not in clients:
        local = settings.in_process is not None
        clients[key] = InProcessJudge(settings) if local else JudgeClient(settings, router_address, tokenizer)
    return clients[key]


async def close_clients() -> None:
    """Close the connections of the running event loop's clients, before the loop ends."""
    for client in _CLIENTS.pop(asyncio.get_running_loop(), {}).values():
        await client.close()
