"""A judge in a process of its own, to be killed: speaks as much of the OpenAI protocol as our client asks for.

    python -m tests.runs.judge_stand_in PORT STATE

The file STATE says how it answers: ``well``, ``garbage`` (most of it is worth another attempt) or ``no verdict``.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.runs.faulty_rewards import says_right

WORDS = ("Right", "Wrong")
DELAY_S = 1.0
NO_VERDICT_EVERY = 30


def answer_with(logprobs: dict[str, Any]) -> web.Response:
    top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    choice = {"index": 0, "message": {"content": "?"}, "logprobs": {"content": [{"top_logprobs": top}]}}
    return web.json_response({"choices": [choice]})


def verdict(text: str) -> web.Response:
    first, second = WORDS if says_right(text) else WORDS[::-1]
    return answer_with({first: -0.1, second: -3.0})


def no_verdict() -> web.Response:
    return answer_with({"banana": -0.1, "Right": float("nan")})


def garbage(number: int) -> web.Response:
    if number % NO_VERDICT_EVERY == 0:
        return no_verdict()
    kinds = [
        web.Response(status=500, text="Right"),
        web.Response(text='{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "Right", "log'),
        web.Response(text="<html>Right</html>", content_type="text/html"),
        web.Response(body=b"\xff\xfe\x00Right"),
        web.Response(text=""),
    ]
    return kinds[number % len(kinds)]


def serve(port: int, state: Path) -> None:
    numbers = itertools.count(1)

    async def card(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "stand-in"}]})

    async def judge(request: web.Request) -> web.Response:
        text = (await request.json())["messages"][-1]["content"]
        await asyncio.sleep(DELAY_S)
        mood = state.read_text()
        if mood == "well":
            return verdict(text)
        return garbage(next(numbers)) if mood == "garbage" else no_verdict()

    app = web.Application()
    app.add_routes([web.get("/v1/models", card), web.post("/v1/chat/completions", judge)])
    web.run_app(app, host="127.0.0.1", port=port, print=lambda *_: None)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
