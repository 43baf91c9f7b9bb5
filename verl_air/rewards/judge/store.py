"""What judges leave on disk: the verdicts that they gave, and how much a run has asked of them.

Both are SQLite files, which the processes of one machine share, each used in a thread: the event loop never waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from verl_air.errors import ConfigError, RewardError
from verl_air.rewards.judge.settings import JudgeError, JudgeSettings
from verl_air.rewards.types import ThrottledLog

log = ThrottledLog(logging.getLogger(__name__))

T = TypeVar("T")
_PAUSE_S = 30.0  # after a fault the cache is left alone, so that rows do not queue behind a lock


class _Database:
    """One file and its thread; opened by the first use.

    Raises:
        ConfigError: the file cannot be opened or is not ours.
    """

    def __init__(self, key: str, path: str, schema: str, timeout_s: float) -> None:
        self._key, self._path, self._schema, self._timeout_s = key, path, schema, timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verl-air-store")
        self._db: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self.submit(lambda: work(self.opened()))

    async def submit(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._thread.submit(work))

    def opened(self) -> sqlite3.Connection:
        if self._db is None:
            file = Path(self._path).expanduser()
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                db = sqlite3.connect(file, timeout=self._timeout_s, isolation_level=None, check_same_thread=False)
                for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", self._schema):
                    db.execute(statement)
            except (OSError, sqlite3.Error) as error:
                if "locked" in str(error):
                    raise
                raise ConfigError(
                    f"{self._key}: cannot use {self._path} ({error}); give another path, or remove the file"
                ) from error
            self._db = db
        return self._db


class VerdictCache:
    """Verdicts by the digest of all that they depend on. Not for network file systems.

    A fault while reading or writing (a full disk, a lock held too long) is logged and counts as a miss: the cache saves
    time and decides nothing.
    """

    def __init__(self, path: str) -> None:
        schema = "CREATE TABLE IF NOT EXISTS verdict (key BLOB PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
        self._database = _Database("judge.cache", path, schema, timeout_s=2.0)
        self._left_alone_until = 0.0

    @staticmethod
    def key(*parts: Any) -> bytes:
        """Digest of what a verdict depends on."""
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()

    async def get(self, keys: Sequence[bytes]) -> list[Any]:
        """The stored values, ``None`` where there is none."""
        query = "SELECT value FROM verdict WHERE key = ?"
        rows = await self._tried(lambda db: [db.execute(query, (key,)).fetchone() for key in keys])
        return [None if row is None else json.loads(row[0]) for row in rows or [None] * len(keys)]

    async def put(self, values: Mapping[bytes, Any]) -> None:
        """Store values."""
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        await self._tried(lambda db: db.executemany("INSERT OR REPLACE INTO verdict VALUES (?, ?)", rows))

    async def _tried(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        def unless_left_alone() -> T | None:
            return None if time.monotonic() < self._left_alone_until else work(self._database.opened())

        try:
            return await self._database.submit(unless_left_alone)
        except sqlite3.Error as error:
            self._left_alone_until = time.monotonic() + _PAUSE_S
            log.warning("cache", f"judge cache: {error}; not used for {_PAUSE_S:g} s")
            return None


class Usage:
    """Counts the requests and tokens of a run, and ends it at the caps of its recipe.

    Args:
        settings: with ``usage``, and ``max_requests`` or ``max_tokens``.
        name: the judge in the file, which several may share.
    """

    def __init__(self, settings: JudgeSettings, name: str) -> None:
        schema = "CREATE TABLE IF NOT EXISTS usage (judge TEXT PRIMARY KEY, requests INTEGER, tokens INTEGER)"
        self._database = _Database("judge.usage", str(settings.usage), schema, timeout_s=10.0)
        self._caps = {"requests": settings.max_requests, "tokens": settings.max_tokens}
        self._name = name

    async def take(self, tokens: int) -> None:
        """Count a request before it is sent, with the tokens that it may use at most.

        Raises:
            RewardError: a cap would be passed; the run stops.
            JudgeError: the file cannot be used, so nothing may be sent.
        """

        def work(db: sqlite3.Connection) -> None:
            with db:  # committed, or undone by an error
                db.execute("BEGIN IMMEDIATE")
                db.execute("INSERT OR IGNORE INTO usage VALUES (?, 0, 0)", (self._name,))
                add = "UPDATE usage SET requests = requests + 1, tokens = tokens + ? WHERE judge = ?"
                db.execute(add, (tokens, self._name))
                after = db.execute("SELECT requests, tokens FROM usage WHERE judge = ?", (self._name,)).fetchone()
                for (what, cap), count in zip(self._caps.items(), after, strict=True):
                    if cap is not None and count > cap:
                        raise RewardError(
                            f"the run may ask {self._name} for {cap} {what} (judge.max_{what}), and one more request "
                            f"would make {count}; raise the cap and resume"
                        )

        await self._run(work)

    async def correct(self, tokens: int) -> None:
        """Add what a request used more than was counted, or less."""
        change = "UPDATE usage SET tokens = tokens + ? WHERE judge = ?"
        await self._run(lambda db: db.execute(change, (tokens, self._name)))

    async def _run(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        try:
            await self._database.run(work)
        except sqlite3.Error as error:
            raise JudgeError(f"judge.usage: the requests of the run cannot be counted ({error})") from error
