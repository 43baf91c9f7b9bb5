"""The cache of verdicts: asked before the server, shared by processes, and never in the way."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rewards.conftest import Misbehaving, ask, reply, verdict
from verl_air.errors import ConfigError
from verl_air.rewards import JudgeError
from verl_air.rewards.judge.verdicts import VerdictCache


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
        "import sys; from verl_air.rewards.judge.verdicts import VerdictCache as C\n"
        "c, w = C(sys.argv[1]), int(sys.argv[2])\n"
        "for i in range(300):\n"
        "    k = C.key('m', i); v = c.get(k); assert v in (None, i), v; c.put(k, i); c.put(C.key(w, i), [w, i])\n"
        "assert all(c.get(C.key(w, i)) == [w, i] for i in range(300))\n"
    )
    path = str(tmp_path / "cache.sqlite")
    running = [subprocess.Popen([sys.executable, "-c", code, path, str(w)]) for w in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    cache = VerdictCache(path)
    assert [cache.get(VerdictCache.key("m", i)) for i in range(300)] == list(range(300))


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_text("this is a diary, and long enough to be no empty database file " * 100)
    with pytest.raises(ConfigError, match=r"cache\.sqlite"):
        VerdictCache(str(path))


def test_a_cache_that_breaks_counts_as_a_miss(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    cache = VerdictCache(str(path))
    cache.put(b"k", [0.25, "text"])
    with sqlite3.connect(path) as db:
        assert json.loads(db.execute("SELECT value FROM verdict").fetchone()[0]) == [0.25, "text"], "JSON, nothing else"
        db.execute("DROP TABLE verdict")
    cache.put(b"k", 2.0)
    assert cache.get(b"k") is None
