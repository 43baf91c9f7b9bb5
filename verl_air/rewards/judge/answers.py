"""Reading what a judge server answers: whatever is not plainly a verdict is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_air.rewards.judge.errors import JudgeError

_NEVER = -9999.0  # what vLLM writes for minus infinity


def by_word(word: str) -> Callable[[str], bool]:
    """Recognises a verdict word in the log-probs of any server, with or without a leading blank."""
    return lambda token: token.strip(" \u2581\u0120") == word


def by_id(ids: Sequence[int]) -> Callable[[str], bool]:
    """Recognises the spellings of a verdict word by vLLM's names for token ids."""
    names = {f"token_id:{index}" for index in ids}
    return lambda token: token in names


def difference(logprobs: Any, is_positive: Callable[[str], bool], is_negative: Callable[[str], bool]) -> float:
    """Log-odds of the two words, each summed over its spellings; both must be among what the server returned."""
    if not isinstance(logprobs, Mapping):
        raise JudgeError(f"the judge's answer holds no log-probs: {str(logprobs)[:200]}")
    pairs = [(str(token), float(value)) for token, value in logprobs.items() if is_finite(value)]
    positive = _log_sum([value for token, value in pairs if is_positive(token)])
    negative = _log_sum([value for token, value in pairs if is_negative(token)])
    if positive is None or negative is None or max(positive, negative) <= _NEVER:
        raise JudgeError(f"a verdict word is not among the log-probs that the judge returned: {str(dict(pairs))[:200]}")
    return positive - negative


def _log_sum(values: Sequence[float]) -> float | None:
    if not values:
        return None
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def chat_logprobs(entries: Any) -> dict[str, float] | None:
    """The chat endpoint's list as a mapping."""
    if not isinstance(entries, list):
        return None
    return {
        entry["token"]: entry["logprob"]
        for entry in entries
        if isinstance(entry, Mapping) and {"token", "logprob"} <= set(entry)
    }


def dig(value: Any, *path: Any) -> Any:
    """Follow keys and indices through decoded JSON; ``None`` where the way ends."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def is_finite(value: Any) -> bool:
    """Whether a decoded value is a number that one can compute with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
