"""The log-odds of two words: asked for, read from what a server answers, and stored on disk.

One token is generated, and its log-probs are read. Whatever is not plainly a verdict is none: :class:`JudgeError`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verl_air.errors import ConfigError
from verl_air.rewards.judge.prompts import ChatMessage
from verl_air.rewards.judge.settings import JudgeError
from verl_air.rewards.types import ThrottledLog

log = ThrottledLog(logging.getLogger(__name__))

_ONE_TOKEN: Mapping[str, Any] = {"max_tokens": 1, "temperature": 0.0}
_MINUS_INFINITY = -9999.0  # as vLLM writes it
_SCHEMA = "CREATE TABLE IF NOT EXISTS verdict (key BLOB PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"

WordIds = tuple[Sequence[int], Sequence[int]]
"""Token ids of the spellings of the positive and of the negative word."""


def chat_question(model: str, messages: Sequence[ChatMessage], top_logprobs: int) -> dict[str, Any]:
    """For the chat endpoint, which takes one prompt at a time."""
    return {"model": model, **_ONE_TOKEN, "logprobs": True, "top_logprobs": top_logprobs, "messages": messages}


def completion_question(
    model: str, prompts: Sequence[list[int] | str], top_logprobs: int, words: WordIds | None
) -> dict[str, Any]:
    """For the completions endpoint: all prompts in one request; ``words`` are for vLLM alone."""
    payload: dict[str, Any] = {"model": model, **_ONE_TOKEN, "logprobs": top_logprobs, "prompt": prompts}
    if words is not None:
        wanted = [*words[0], *words[1]]
        # A vLLM that does not know `logprob_token_ids` ignores it; then `allowed_token_ids` puts the verdict tokens at
        # the top of processed log-probs (verl's default), which does not change their difference.
        payload |= {"logprob_token_ids": wanted, "allowed_token_ids": wanted, "return_tokens_as_token_ids": True}
    return payload


def read_chat(answer: Any, positive: str, negative: str) -> float:
    """The log-odds in an answer to :func:`chat_question`."""
    entries = dig(answer, "choices", 0, "logprobs", "content", 0, "top_logprobs")
    if isinstance(entries, list):
        entries = {str(dig(entry, "token")): dig(entry, "logprob") for entry in entries}
    return _log_odds(entries, _spells(positive, None), _spells(negative, None))


def read_completions(answer: Any, prompts: int, positive: str, negative: str, words: WordIds | None) -> list[float]:
    """The log-odds after each prompt, from an answer to :func:`completion_question`."""
    ids = (None, None) if words is None else words
    matches = _spells(positive, ids[0]), _spells(negative, ids[1])
    choices = dig(answer, "choices")
    by_index = {dig(choice, "index"): choice for choice in choices} if isinstance(choices, list) else {}
    return [_log_odds(dig(by_index, index, "logprobs", "top_logprobs", 0), *matches) for index in range(prompts)]


def dig(value: Any, *path: Any) -> Any:
    """Follow keys and indices through decoded JSON; ``None`` where the path ends."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def is_finite(value: Any) -> bool:
    """Whether a decoded value is a number that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _spells(word: str, ids: Sequence[int] | None) -> Callable[[str], bool]:
    """Recognizes a verdict word: by vLLM's names for its token ids, or as text with or without a leading blank."""
    if ids is None:
        return lambda token: token.strip(" \u2581\u0120") == word
    names = {f"token_id:{index}" for index in ids}
    return names.__contains__


def _log_odds(logprobs: Any, is_positive: Callable[[str], bool], is_negative: Callable[[str], bool]) -> float:
    """Each word summed over its spellings; both must be among what the server returned."""
    if not isinstance(logprobs, Mapping):
        raise JudgeError(f"the judge's answer holds no log-probs: {str(logprobs)[:200]}")
    found = {str(token): float(value) for token, value in logprobs.items() if is_finite(value)}
    positive, negative = (
        float(np.logaddexp.reduce([value for token, value in found.items() if matches(token)]))
        for matches in (is_positive, is_negative)
    )
    if -math.inf in (positive, negative) or max(positive, negative) <= _MINUS_INFINITY:
        raise JudgeError(f"a verdict word is not among the log-probs that the judge returned: {str(found)[:200]}")
    return positive - negative


class VerdictCache:
    """Verdicts in a SQLite file (WAL): many processes of one machine may share it. Not for network file systems.

    A fault while reading or writing (a full disk, a lock held too long) is logged and counts as a miss: the cache saves
    time and decides nothing.

    Raises:
        ConfigError: the file cannot be opened or is not ours.
    """

    def __init__(self, path: str) -> None:
        file = Path(path).expanduser()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file, timeout=2.0, isolation_level=None, check_same_thread=False)
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", _SCHEMA):
                self._db.execute(statement)
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
        """The stored value, or ``None``."""
        try:
            row = self._db.execute("SELECT value FROM verdict WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            log.warning("read", f"judge cache: {error}")
            return None
        return None if row is None else json.loads(row[0])

    def put(self, key: bytes, value: Any) -> None:
        """Store a value."""
        try:
            self._db.execute("INSERT OR REPLACE INTO verdict VALUES (?, ?)", (key, json.dumps(value)))
        except sqlite3.Error as error:
            log.warning("write", f"judge cache: {error}")
