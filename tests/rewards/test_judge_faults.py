"""What the judge's client makes of a server that misbehaves: retried, refused, or abstained; never a number."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.rewards.conftest import QUICK, Misbehaving, ask, reply, verdict
from tests.rewards.support import assert_sound, respond, row
from verl_air.errors import ConfigError, RewardError
from verl_air.rewards import JudgeError, JudgeSettings, Rendering, compute_score
from verl_air.rewards.judge import close_clients
from verl_air.rewards.judge.prompts import PromptWriter
from verl_air.rewards.types import ThrottledLog


async def scored(
    server: Misbehaving, route: Any, response: str, extra: dict[str, Any], **judge: Any
) -> dict[str, float]:
    settings = {"base_url": server.url, **QUICK, **judge}
    result = await compute_score("safety/train", response, "", extra, routes={"*": route}, judge=settings)
    assert_sound(result)
    return result


@pytest.mark.parametrize("status", [500, 503, 429, 408])
async def test_passing_trouble_is_retried(server: Misbehaving, status: int) -> None:
    server.handler = lambda request, n: reply(verdict()) if n == 3 else reply({"error": "later"}, status)
    assert await ask(server.client()) == 1.0
    assert server.requests == 3


@pytest.mark.parametrize(
    ("status", "requests", "message"),
    [(status, 1, f"HTTP {status}") for status in (400, 401, 403, 404, 422)]
    + [(status, 3, f"3 attempts failed.*HTTP {status}") for status in (500, 429)],
)
async def test_a_refusal_is_final_at_once_and_lasting_trouble_after_the_attempts(
    server: Misbehaving, status: int, requests: int, message: str
) -> None:
    server.handler = lambda request, n: reply({"error": "no"}, status)
    with pytest.raises(JudgeError, match=message):
        await ask(server.client())
    assert server.requests == requests


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_rate_limit_is_obeyed_by_all_requests(server: Misbehaving, status: int, form: str) -> None:
    """The first request is told to wait; none of the others is sent before, and no attempt is used up."""
    told = 0.0
    arrivals = []

    async def handler(request: web.Request, n: int) -> web.Response:
        nonlocal told
        arrivals.append(time.time())
        if n > 1:
            return await reply(verdict())
        told = time.time()
        after = "1" if form == "seconds" else formatdate(told + 2.0, usegmt=True)
        return web.json_response({}, status=status, headers={"Retry-After": after})

    server.handler = handler
    judge = server.client(attempts=1, max_concurrency=1, total_timeout_s=30.0)
    assert await asyncio.gather(*(ask(judge, f"text {i}") for i in range(5))) == [1.0] * 5
    assert server.requests == 6
    assert min(arrivals[1:]) - told >= 0.95, "seconds as a date are whole"


async def test_a_rate_limit_longer_than_the_time_allowed_is_said_at_once(server: Misbehaving) -> None:
    server.handler = lambda request, n: asyncio.sleep(0, web.Response(status=429, headers={"Retry-After": "3600"}))
    start = time.monotonic()
    with pytest.raises(JudgeError, match=r"asks to wait 3600 s, above judge\.total_timeout_s"):
        await ask(server.client())
    assert time.monotonic() - start < 5.0
    assert server.requests == 1


@pytest.mark.parametrize(("cap", "sent"), [({"max_requests": 3}, 3), ({"max_tokens": 90}, 2)])
async def test_a_cap_stops_the_run_and_outlives_it(
    server: Misbehaving, tmp_path: Path, cap: dict[str, int], sent: int
) -> None:
    """Each verdict uses 40 tokens, as the server says; a resumed run and a second process continue the count."""
    server.handler = lambda request, n: reply({**verdict(), "usage": {"total_tokens": 40, "prompt_tokens": 39}})
    limits = {"usage": str(tmp_path / "run" / "judge.sqlite"), **cap}
    route = {"name": "verdict_judge", "template": "Is {response} good?"}
    for _ in range(sent):
        assert (await scored(server, route, "x", row(), **limits))["acc"] == 1.0
        await close_clients()
    name = next(iter(cap))
    with pytest.raises(RewardError, match=rf"judge\.{name}.*raise the cap and resume"):
        await scored(server, route, "x", row(), **limits)
    assert server.requests == sent, "nothing is sent that would pass the cap"


async def test_judges_of_one_server_have_caps_of_their_own(server: Misbehaving, tmp_path: Path) -> None:
    route = {"name": "verdict_judge", "template": "Is {response} good?"}
    limits = {"usage": str(tmp_path / "judge.sqlite"), "max_requests": 1}
    for model in ("large", "small"):
        assert (await scored(server, route, "x", row(), **limits, model=model))["acc"] == 1.0
    with pytest.raises(RewardError, match=r"may ask small at http://.* for 1 requests"):
        await scored(server, route, "x", row(), **limits, model="small")


def test_caps_need_a_file_to_count_in() -> None:
    with pytest.raises(ConfigError, match=r"usage: \$\{run_dir\}"):
        JudgeSettings(base_url="http://judge", max_requests=3)


async def test_what_a_healthy_server_behind_verls_router_answers_with_500_was_refused(server: Misbehaving) -> None:
    server.handler = lambda request, n: reply({}, 500)
    with pytest.raises(JudgeError, match=r"up and refuses.*max_model_len"):
        await ask(server.client(server.address, attempts=4))
    assert server.requests == 2


@pytest.mark.parametrize(("healthy", "good"), [(False, 4), (True, 2)], ids=["an ailing server", "a single 500"])
async def test_other_trouble_behind_verls_router_is_retried(server: Misbehaving, healthy: bool, good: int) -> None:
    server.healthy = healthy
    server.handler = lambda request, n: reply(verdict()) if n == good else reply({}, 500)
    assert await ask(server.client(server.address, attempts=4)) == 1.0


def no_word(word: str) -> dict[str, Any]:
    answer = verdict()
    entry = answer["choices"][0]["logprobs"]["content"][0]
    entry["top_logprobs"] = [item for item in entry["top_logprobs"] if item["token"].strip() != word]
    return answer


GARBAGE: dict[str, Any] = {
    "empty object": {},
    "a list": [],
    "a number": 3,
    "null": None,
    "no choices": {"choices": []},
    "null log-probs": {"choices": [{"index": 0, "logprobs": None}]},
    "log-probs that are text": {"choices": [{"logprobs": {"content": [{"top_logprobs": "YES"}]}}]},
    "a word is missing": no_word("NO"),
    "the other word is missing": no_word("YES"),
    "not a number": verdict(yes=float("nan")),
    "infinite": verdict(yes=float("-inf")),
    "beyond all numbers": verdict(yes=-(10**400)),
    "impossible both": verdict(yes=-9999.0, no=-9999.0),
    "text where a number should be": verdict(yes="-1"),  # type: ignore[arg-type]
    "an error with status 200": {"error": {"message": "overloaded"}},
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_no_verdict(server: Misbehaving, answer: Any) -> None:
    server.handler = lambda request, n: reply(answer)
    with pytest.raises(JudgeError):
        await ask(server.client())


def tokens(**found: float) -> dict[str, Any]:
    top = [{"token": token, "logprob": value} for token, value in found.items()]
    return {"choices": [{"index": 0, "logprobs": {"content": [{"top_logprobs": top}]}}]}


@pytest.mark.parametrize(
    "found",
    [{"<think>": -0.01, "NO": -5.2, "YES": -9.1}, {"\n\n": -0.001, "YES": -9.0, "NO": -9.5}],
    ids=["a thought begins", "a line break comes first"],
)
async def test_words_without_mass_are_no_verdict(
    server: Misbehaving,
    found: dict[str, float],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("verl_air.rewards.score.log", ThrottledLog(logging.getLogger("unthrottled")))
    server.handler = lambda request, n: reply(tokens(**found))
    result = await scored(server, {"name": "verdict_judge", "template": "Is {response} good?"}, respond("x"), row())
    assert result["abstained"] == 1.0
    assert result["judge_mass"] == pytest.approx(sum(math.exp(found[word]) for word in ("YES", "NO")))
    assert "judge.min_mass=0.5" in caplog.text
    assert repr(next(iter(found))) in caplog.text, "the likeliest token is in the log"
    unguarded = await scored(
        server, {"name": "verdict_judge", "template": "Is {response} good?"}, respond("x"), row(), min_mass=0.0
    )
    assert unguarded["abstained"] == 0.0


async def test_a_word_that_the_server_left_out_is_less_likely_than_all_it_returned(server: Misbehaving) -> None:
    server.handler = lambda request, n: reply(tokens(YES=math.log(0.9), Yes=math.log(0.05), Sure=math.log(0.04)))
    assert await ask(server.client()) == pytest.approx(math.log(0.9) - math.log(0.01))
    server.handler = lambda request, n: reply(tokens(NO=-1e-9))
    assert await ask(server.client()) < -10


async def test_several_words_are_read_at_once(server: Misbehaving) -> None:
    grades = {str(grade): math.log(share) for grade, share in enumerate((0.1, 0.2, 0.3, 0.3, 0.1), start=1)}
    server.handler = lambda request, n: reply(tokens(**grades))
    [found] = await server.client().log_probs(["Grade {response}: "], list(grades), fields={"response": "x"})
    assert found == pytest.approx(list(grades.values()))


@pytest.mark.parametrize("body", [b"", b"<html>busy</html>", b'{"choices": [', b"\xff\xfe\x00", b"{}" * 500_000])
async def test_a_body_that_is_not_json_is_retried_then_fails(server: Misbehaving, body: bytes) -> None:
    server.handler = lambda request, n: asyncio.sleep(0, web.Response(body=body, content_type="application/json"))
    with pytest.raises(JudgeError):
        await ask(server.client())
    assert server.requests == 3


async def test_a_server_that_hangs_up_in_the_middle(server: Misbehaving) -> None:
    async def handler(request: web.Request, n: int) -> web.StreamResponse:
        if n == 3:
            return await reply(verdict())
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"choices"')
        assert request.transport is not None
        request.transport.close()
        return response

    server.handler = handler
    assert await ask(server.client()) == 1.0


async def test_a_slow_server_is_given_up(server: Misbehaving) -> None:
    server.handler = lambda request, n: asyncio.sleep(30, web.Response())
    judge = server.client(total_timeout_s=0.8, request_timeout_s=0.3)
    start = time.monotonic()
    with pytest.raises(JudgeError, match=r"no verdict within 0\.8 s"):
        await ask(judge)
    assert time.monotonic() - start < 20.0  # the server would take 30


async def test_a_server_that_drips_is_given_up(server: Misbehaving) -> None:
    """Each byte comes in time; all of them together never do."""

    async def handler(request: web.Request, n: int) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    server.handler = handler
    with pytest.raises(JudgeError, match="TimeoutError"):
        await ask(server.client(attempts=1, request_timeout_s=0.5))


async def test_nobody_there(server: Misbehaving) -> None:
    with pytest.raises(JudgeError, match="3 attempts failed"):
        await ask(server.client(base_url="http://127.0.0.1:9/v1"))


async def test_requests_in_flight_are_bounded(server: Misbehaving) -> None:
    server.handler = lambda request, n: asyncio.sleep(0.1, web.json_response(verdict()))
    judge = server.client(max_concurrency=5, total_timeout_s=3.0)
    values = await asyncio.gather(*(ask(judge, f"text {i}") for i in range(200)))
    assert values == [1.0] * 200, "waiting for a place does not use up a request's time"
    assert server.most_busy == 5


async def test_the_first_rows_are_sent_while_others_are_still_encoded(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of a batch come at once, and the server should not wait until the last of them is tokenized."""
    encoded, at_first = 0, []
    write = PromptWriter.encode

    def slowly(self: PromptWriter, *args: Any, **kwargs: Any) -> Any:
        nonlocal encoded
        time.sleep(0.02)
        encoded += 1
        return write(self, *args, **kwargs)

    async def handler(request: web.Request, n: int) -> web.StreamResponse:
        at_first.append(encoded)
        logprobs = {"top_logprobs": [{"token_id:1": -1.0, "YES": -0.5, "NO": -1.5}]}
        return await reply({"choices": [{"index": 0, "logprobs": logprobs}]})

    monkeypatch.setattr(PromptWriter, "encode", slowly)
    server.handler = handler
    judge = server.client()
    how = Rendering(chat=False)
    rows = (judge.log_odds("Is {response} good?", "YES", "NO", fields={"response": str(i)}, how=how) for i in range(40))
    assert len(await asyncio.gather(*rows)) == 40
    assert at_first[0] < 20


async def test_nothing_is_lost_and_nothing_invented_when_a_server_fails_now_and_then(server: Misbehaving) -> None:
    """Every row ends up with the verdict that the server meant for it, or abstains."""

    async def handler(request: web.Request, n: int) -> web.Response:
        text = (await request.json())["messages"][0]["content"]
        number = int(text.split("no")[1].split()[0])
        if n % 3 == 0:
            return await reply({"error": "busy"}, 500 if n % 2 else 429)
        if number % 7 == 0:
            return await reply({"choices": []})
        return await reply(verdict(yes=-1.0, no=-2.0 if number % 2 else -0.5))

    server.handler = handler
    route = {"name": "verdict_judge", "template": "about {response} no{answer} end"}
    limits = {"attempts": 8, "total_timeout_s": 30.0}
    rows = [scored(server, route, respond(str(number)), row(), **limits) for number in range(1, 200)]
    for number, result in enumerate(await asyncio.gather(*rows), start=1):
        assert result["abstained"] == float(number % 7 == 0)
        assert result["abstained"] or result["acc"] == float(number % 2)


async def test_one_missing_facet_abstains_the_whole_row(server: Misbehaving) -> None:
    async def handler(request: web.Request, n: int) -> web.Response:
        refused = "scams" in (await request.json())["messages"][0]["content"]
        return await reply(verdict(-0.1, -3.0, ("Safe", "Unsafe")), 400 if refused else 200)

    server.handler = handler
    result = await scored(server, "safety_judge", respond("No."), row("safety", "open", request="r"))
    assert result["abstained"] == 1.0


async def test_the_key_is_sent_and_must_be_set(server: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: web.Request, n: int) -> Awaitable[web.Response]:
        return reply(verdict(), 200 if request.headers.get("Authorization") == "Bearer secret" else 401)

    server.handler = handler
    monkeypatch.setenv("LAB_KEY", "secret")
    assert await ask(server.client(api_key_env="LAB_KEY")) == 1.0
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        server.client(api_key_env="NO_SUCH_KEY")


async def test_each_route_asks_its_own_judge(server: Misbehaving, second: Misbehaving, tmp_path: Path) -> None:
    """Two servers that disagree, and verl's; each with limits, a cache and a place in the results of its own."""
    server.handler, second.handler = lambda *_: reply(verdict(-1.0, -2.0)), lambda *_: reply(verdict(-2.0, -1.0))
    route = {"name": "verdict_judge", "template": "Is {response} good?"}
    judges = {
        "guard": {"base_url": server.url, "cache": str(tmp_path / "guard.sqlite"), **QUICK},
        "moral": {"base_url": second.url, **QUICK},
    }
    routes = {
        "lab/open/train": {**route, "judge": "guard"},
        "lab/open/id": {**route, "judge": "moral"},
        "lab/open/ood": {**route, "judge": "verl"},
    }
    found = []
    for split in ("train", "train", "id", "ood"):
        extra = row("lab", "open", split)
        asked = {"routes": routes, "judges": judges, "reward_router_address": second.address}
        result = await compute_score(f"lab/{split}", respond("x"), "", extra, **asked)
        assert_sound(result)
        found.append((result["acc"], result["judge"]))
    assert found == [(1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, 2.0)]
    assert (server.requests, second.requests) == (1, 2), "only the first judge has a cache"


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("Reasoning. Verdict: YES", 1.25),
        ("The reply declines.\n**Verdict:** NO", -1.0),
        ("**Verdict**: **YES**", 1.25),
        ("<think>Verdict: NO? No.</think>Verdict: YES", 1.25),
        ("Verdict: NO? No.</think>\nVerdict: YES", 1.25),
        ("<think>Verdict: YES", None),
        ("<think>Verdict: YES</think>", None),
        (
            "<|channel|>analysis<|message|>Verdict: NO<|end|><|start|>assistant<|channel|>final<|message|>Verdict: YES",
            1.25,
        ),
        ("<|channel|>analysis<|message|>Verdict: YES", None),
        ("Verdict: YES. Wait. Verdict: NO", -1.0),
        ("verdict: yes", 1.25),
        ("Verdict: No - it declines", -1.0),
        ("Verdict: NO because it declines", -1.0),
        ("Verdict: YES. No harm is done.", 1.25),
        ("Verdict: YES\nNo harm is done.", 1.25),
        ("Verdict: YES/NO\n\nVerdict: NO", -1.0),
        *[
            (f"Verdict: {echo}", None)
            for echo in (
                "YES/NO",
                "YES or NO",
                "YES | NO",
                "[YES, NO]",
                "YES, NO",
                "**YES** / **NO**",
                "YES?",
                "NOT",
                "No harm done",
            )
        ],
        ("I cannot say.", None),
        ("Verdict: PERHAPS", None),
        ("", None),
        (None, None),
    ],
)
async def test_a_judge_that_writes(server: Misbehaving, text: str | None, reward: float | None) -> None:
    server.handler = lambda request, n: reply({"choices": [{"message": {"content": text}}]})
    result = await scored(server, {"name": "generative_judge", "template": "Judge {response}."}, respond("x"), row())
    assert result["abstained"] == (reward is None)
    assert reward is None or result["task_reward"] == reward


async def test_an_answer_cut_by_its_length_is_no_verdict(server: Misbehaving) -> None:
    choice = {"message": {"content": "Verdict: YES"}, "finish_reason": "length"}
    server.handler = lambda request, n: reply({"choices": [choice]})
    result = await scored(server, {"name": "generative_judge", "template": "Judge {response}."}, respond("x"), row())
    assert result["abstained"] == 1.0
