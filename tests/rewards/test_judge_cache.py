"""The cache of verdicts: asked before the server, shared by processes, and never in the way."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.rewards.conftest import Misbehaving, ask, reply, verdict
from verl_air.errors import ConfigError
from verl_air.rewards import JudgeError
from verl_air.rewards.judge.store import VerdictCache


async def test_a_remembered_verdict_asks_nobody(server: Misbehaving, tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "cache.sqlite")
    first = server.client(cache=path)
    assert await ask(first, "one") == await ask(first, "one") == 1.0
    assert server.requests == 1
    await ask(first, "two")
    await first.log_odds("Is {response} bad?", "YES", "NO", fields={"response": "one"})
    assert server.requests == 3, "another text and another template are other verdicts"
    other_model = server.client(cache=path, model="another")
    await ask(other_model, "one")
    assert server.requests == 4
    again = server.client(cache=path, model="judge")
    assert await ask(again, "one") == 1.0
    assert server.requests == 4


async def test_a_failure_is_not_remembered(server: Misbehaving, tmp_path: Path) -> None:
    server.handler = lambda request, n: reply({"choices": []} if n == 1 else verdict())
    judge = server.client(cache=str(tmp_path / "cache.sqlite"))
    with pytest.raises(JudgeError):
        await ask(judge)
    assert await ask(judge) == 1.0


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from verl_air.rewards.judge.store import VerdictCache as C\n"
        "async def main(c, w):\n"
        "    for i in range(300):\n"
        "        k = C.key('m', i); [v] = await c.get([k]); assert v in (None, i), v\n"
        "        await c.put({k: i, C.key(w, i): [w, i]})\n"
        "    assert await c.get([C.key(w, i) for i in range(300)]) == [[w, i] for i in range(300)]\n"
        "asyncio.run(main(C(sys.argv[1]), int(sys.argv[2])))\n"
    )
    path = str(tmp_path / "cache.sqlite")
    running = [subprocess.Popen([sys.executable, "-c", code, path, str(w)]) for w in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    stored = asyncio.run(VerdictCache(path).get([VerdictCache.key("m", i) for i in range(300)]))
    assert stored == list(range(300))


async def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_text("this is a diary, and long enough to be no empty database file " * 100)
    with pytest.raises(ConfigError, match=r"cache\.sqlite"):
        await VerdictCache(str(path)).get([b"k"])


async def test_a_cache_that_breaks_counts_as_a_miss(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    cache = VerdictCache(str(path))
    await cache.put({b"k": [0.25, "text"]})
    with sqlite3.connect(path) as db:
        assert json.loads(db.execute("SELECT value FROM verdict").fetchone()[0]) == [0.25, "text"], "JSON, nothing else"
        db.execute("DROP TABLE verdict")
    await cache.put({b"k": 2.0})
    assert await cache.get([b"k"]) == [None]


async def test_a_locked_cache_never_stops_the_event_loop(server: Misbehaving, tmp_path: Path) -> None:
    """Another process holds the file for long: rows are judged, and the event loop keeps running."""
    path = tmp_path / "cache.sqlite"
    judge = server.client(cache=str(path))
    await ask(judge, "one")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    gaps, last = [0.0], time.monotonic()

    async def tick() -> None:
        nonlocal last
        while True:
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    ticking = asyncio.create_task(tick())
    start = time.monotonic()
    assert await asyncio.gather(*(ask(judge, f"text {i}") for i in range(20))) == [1.0] * 20
    took = time.monotonic() - start
    ticking.cancel()
    holder.close()
    assert 1.0 < took < 20.0, "one row waited for the lock, and not each of them"
    assert max(gaps) < 1.0


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, False),
        ({"base_url": "another address"}, False),
        ({"request_timeout_s": 9.0, "min_mass": 0.1, "max_concurrency": 3}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, True),
        ({"top_logprobs": 5}, True),
        ({"revision": "2"}, True),
        ({"model": "another"}, True),
        ({"max_chars": 3}, True),
    ],
)
async def test_the_key_is_all_that_changes_a_verdict_and_nothing_else(
    server: Misbehaving, second: Misbehaving, tmp_path: Path, changes: dict[str, Any], asked: bool
) -> None:
    path, text = str(tmp_path / "cache.sqlite"), "a text that may be cut"
    server.card = second.card = {"id": "judge", "root": "some/judge"}
    await ask(server.client(cache=path), text)
    if "base_url" in changes:
        changes = {"base_url": second.url}
    await ask(server.client(cache=path, **changes), text)
    assert server.requests + second.requests == 1 + asked


async def test_weights_on_this_machine_are_known_by_their_fingerprint(server: Misbehaving, tmp_path: Path) -> None:
    """Through verl's router, whose address changes: the same weights elsewhere hit, other weights there miss."""
    for folder, weights in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(weights)
    for folder, requests in (("a", 1), ("b", 1), ("c", 2)):
        server.card = {"id": "judge", "root": str(tmp_path / folder)}
        await ask(server.client(server.address, cache=str(tmp_path / "cache.sqlite")))
        assert server.requests == requests
