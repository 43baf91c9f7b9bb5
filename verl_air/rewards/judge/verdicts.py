"""Verdicts: asked for, and read from what a server answers.

A verdict in words is read from the log-probs of the next token, or of whole words where their first tokens are the
same; the words must hold enough of the probability. A verdict in text is what follows the judge's thought. Whatever is
not plainly a verdict is none: :class:`JudgeError`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from verl_air.rewards.judge.prompts import ChatMessage, Spellings
from verl_air.rewards.judge.settings import JudgeError

MASSES: ContextVar[list[float] | None] = ContextVar("MASSES", default=None)
"""Collects the mass of every verdict of a row; set by ``compute_score``."""

_ONE_TOKEN: Mapping[str, Any] = {"max_tokens": 1, "temperature": 0.0}
_SMALLEST_REST = 1e-6  # of the probability that a server's log-probs leave over: they are rounded
_FINAL_CHANNEL = re.compile(r"<\|channel\|>final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")


class WordReading(NamedTuple):
    """log_probs: one per word, in nats. mass: the words' share of the probability. top: the likeliest tokens."""

    log_probs: list[float]
    mass: float
    top: str


def chat_question(model: str, messages: Sequence[ChatMessage], top_logprobs: int) -> dict[str, Any]:
    """For the chat endpoint, which takes one prompt at a time."""
    return {"model": model, **_ONE_TOKEN, "logprobs": True, "top_logprobs": top_logprobs, "messages": messages}


def completion_question(
    model: str, prompts: Sequence[list[int] | str], top_logprobs: int, words: Spellings | None
) -> dict[str, Any]:
    """For the completions endpoint: all prompts in one request; ``words``, of one token each, are for vLLM alone.

    Nothing here masks or reweights tokens, so verl's processed log-probs are the model's own. A vLLM that does not know
    ``logprob_token_ids`` ignores it and returns its top log-probs.
    """
    payload: dict[str, Any] = {"model": model, **_ONE_TOKEN, "logprobs": top_logprobs, "prompt": prompts}
    if words is not None:
        wanted = sorted({token for spellings in words for (token,) in spellings})
        payload |= {"logprob_token_ids": wanted, "return_tokens_as_token_ids": True, "repetition_penalty": 1.0}
    return payload


def continuation_question(model: str, prompts: Sequence[list[int]], words: Spellings) -> dict[str, Any]:
    """For words of several tokens: each prompt with each spelling behind it, to be read instead of written."""
    continued = [[*prompt, *ids] for prompt in prompts for spellings in words for ids in spellings]
    return {"model": model, **_ONE_TOKEN, "logprobs": 1, "echo": True, "prompt": continued}


def read_chat(answer: Any, words: Sequence[str]) -> WordReading:
    """The words' log-probs in an answer to :func:`chat_question`."""
    entries = dig(answer, "choices", 0, "logprobs", "content", 0, "top_logprobs")
    if isinstance(entries, list):
        entries = {str(dig(entry, "token")): dig(entry, "logprob") for entry in entries}
    return _read_words(entries, [_spells(word) for word in words])


def read_completions(answer: Any, prompts: int, words: Sequence[str], spellings: Spellings | None) -> list[WordReading]:
    """The words' log-probs after each prompt, from an answer to :func:`completion_question`."""
    if spellings is None:
        matches = [_spells(word) for word in words]
    else:
        matches = [{f"token_id:{token}" for (token,) in ids}.__contains__ for ids in spellings]
    found = _by_index(answer)
    return [_read_words(dig(found, index, "logprobs", "top_logprobs", 0), matches) for index in range(prompts)]


def read_continuations(answer: Any, prompts: Sequence[Sequence[int]], words: Spellings) -> list[WordReading]:
    """The words' log-probs after each prompt, from an answer to :func:`continuation_question`."""
    found, index, readings = _by_index(answer), 0, []
    for prompt in prompts:
        spelled: list[list[float]] = []
        for spellings in words:
            spelled.append([])
            for ids in spellings:
                values = dig(found, index, "logprobs", "token_logprobs")
                values = values[len(prompt) : len(prompt) + len(ids)] if isinstance(values, list) else []
                if len(values) < len(ids) or not all(map(is_finite, values)):
                    raise JudgeError(f"the judge's answer holds no log-probs of the verdict words: {values!r}")
                spelled[-1].append(sum(values))
                index += 1
        readings.append(reading_of(spelled))
    return readings


def reading_of(spelled: Sequence[Sequence[float]], top: str = "") -> WordReading:
    """Join the log-probs of each word's spellings."""
    log_probs = [float(np.logaddexp.reduce(values)) for values in spelled]
    return WordReading(log_probs, min(1.0, sum(map(math.exp, log_probs))), top)


def require_mass(reading: WordReading, words: Sequence[str], min_mass: float) -> None:
    """Count a reading's mass, and refuse one whose words are not what the judge would write.

    Raises:
        JudgeError: the words hold less than ``min_mass`` of the probability.
    """
    if (masses := MASSES.get()) is not None:
        masses.append(reading.mass)
    if reading.mass < min_mass:
        raise JudgeError(
            f"the words {', '.join(map(repr, words))} hold {reading.mass:.2g} of the probability, less than "
            f"judge.min_mass={min_mass:g}; likeliest tokens: {reading.top or 'not known'}"
        )


def final_text(answer: Any, text: Any) -> str:
    """What a judge wrote after its thought, or in its final channel.

    Raises:
        JudgeError: no text, or the length limit cut it, or the thought has no end.
    """
    if dig(answer, "choices", 0, "finish_reason") == "length":
        raise JudgeError(f"the judge's answer was cut by its length limit; give it more tokens: {str(text)[-200:]!r}")
    if not isinstance(text, str):
        raise JudgeError(f"the judge's answer holds no text: {text!r}")
    if "<|channel|>" in text:
        channels = list(_FINAL_CHANNEL.finditer(text))
        if not channels:
            raise JudgeError("the judge's answer has no final channel")
        text = text[channels[-1].end() :]
    thought, found, rest = text.rpartition("</think>")
    if (rest if found else text).count("<think>"):
        raise JudgeError("the judge's thought has no end")
    return rest if found else thought + rest


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


def _by_index(answer: Any) -> dict[Any, Any]:
    choices = dig(answer, "choices")
    return {dig(choice, "index"): choice for choice in choices} if isinstance(choices, list) else {}


def _spells(word: str) -> Callable[[str], bool]:
    """Recognizes a word of one token, with or without a leading blank."""
    return lambda token: token.strip(" \u2581\u0120") == word


def _read_words(logprobs: Any, matches: Sequence[Callable[[str], bool]]) -> WordReading:
    """Each word summed over its spellings.

    A word that the server left out has at most the smallest log-prob that it returned, and at most what all returned
    ones leave over: it counts with that bound, so that a certain verdict is one. It adds nothing to the mass.
    """
    if not isinstance(logprobs, Mapping):
        raise JudgeError(f"the judge's answer holds no log-probs: {str(logprobs)[:200]}")
    found = {str(token): min(0.0, float(value)) for token, value in logprobs.items() if is_finite(value)}
    present = [[value for token, value in found.items() if match(token)] for match in matches]
    likeliest = sorted(found, key=lambda token: -found[token])[:5]
    top = ", ".join(f"{token!r} {math.exp(found[token]):.2g}" for token in likeliest)
    if not any(present):
        raise JudgeError(
            f"no verdict word is among the log-probs that the judge returned ({top}); if a word is several tokens of "
            "the judge, name judge.tokenizer"
        )
    reading = reading_of(present, top)
    rest = max(_SMALLEST_REST, 1.0 - sum(map(math.exp, found.values())))
    bound = min(min(found.values()), math.log(rest))
    return reading._replace(log_probs=[bound if math.isinf(value) else value for value in reading.log_probs])
