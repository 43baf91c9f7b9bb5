"""Verdicts remembered on disk, keyed by model, template and text."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards.throttle import ThrottledLog

log = ThrottledLog(logging.getLogger(__name__))

_SCHEMA = "CREATE TABLE IF NOT EXISTS verdict (key BLOB PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"


class VerdictCache:
    """A SQLite file in WAL mode: many processes of one machine may read and write it. Not for network file systems.

    A fault while reading or writing (a full disk, a lock held too long) is logged and counts as a miss: the cache saves
    time and decides nothing.

    Raises:
        ConfigError: the file cannot be opened or is not ours.
    """

    def __init__(self, path: str) -> None:
        try:
            Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                Path(path).expanduser(), timeout=2.0, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(_SCHEMA)
            self._db.execute("SELECT key, value FROM verdict LIMIT 1")
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"judge.cache: cannot use {path} ({error}); give another path, or remove the file"
            ) from error

    @staticmethod
    def key(*parts: Any) -> bytes:
        """Digest of what a verdict depends on."""
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()

    def get(self, key: bytes) -> Any:
        """The remembered value, or ``None``."""
        try:
            row = self._db.execute("SELECT value FROM verdict WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            log.warning("read", f"judge cache: {error}")
            return None
        return None if row is None else json.loads(row[0])

    def put(self, key: bytes, value: Any) -> None:
        """Remember a value."""
        try:
            self._db.execute("INSERT OR REPLACE INTO verdict VALUES (?, ?)", (key, json.dumps(value)))
        except sqlite3.Error as error:
            log.warning("write", f"judge cache: {error}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()
