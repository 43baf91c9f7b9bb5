"""The log-odds of two words, asked from a server: one token is generated, and its log-probs are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verl_air.rewards.judge.answers import by_id, by_word, chat_logprobs, difference, dig
from verl_air.rewards.judge.prompts import Message

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

_ONE_TOKEN: Mapping[str, Any] = {"max_tokens": 1, "temperature": 0.0}


def chat_question(model: str, messages: Sequence[Message], top_logprobs: int) -> dict[str, Any]:
    """For :data:`CHAT`, which takes one prompt at a time."""
    return {"model": model, **_ONE_TOKEN, "logprobs": True, "top_logprobs": top_logprobs, "messages": messages}


def read_chat(answer: Any, positive: str, negative: str) -> float:
    """The log-odds in an answer to :func:`chat_question`.

    Raises:
        JudgeError: it holds none.
    """
    entries = dig(answer, "choices", 0, "logprobs", "content", 0, "top_logprobs")
    return difference(chat_logprobs(entries), by_word(positive), by_word(negative))


def question(
    model: str,
    prompts: Sequence[Sequence[int]] | Sequence[str],
    top_logprobs: int,
    words: tuple[Sequence[int], Sequence[int]] | None,
) -> dict[str, Any]:
    """For :data:`COMPLETIONS`: all prompts in one request.

    Args:
        model: its name at the server.
        prompts: token ids or texts.
        top_logprobs: how many to ask for where ``words`` are not known.
        words: token ids of the two words, for vLLM alone.
    """
    payload: dict[str, Any] = {"model": model, **_ONE_TOKEN, "logprobs": top_logprobs, "prompt": prompts}
    if words is not None:
        wanted = [*words[0], *words[1]]
        # A vLLM that does not know `logprob_token_ids` ignores it; then `allowed_token_ids` puts the verdict tokens at
        # the top of processed log-probs (verl's default), which leaves their difference as it was.
        payload |= {"logprob_token_ids": wanted, "allowed_token_ids": wanted, "return_tokens_as_token_ids": True}
    return payload


def read(
    answer: Any, prompts: int, positive: str, negative: str, words: tuple[Sequence[int], Sequence[int]] | None
) -> list[float]:
    """The log-odds after each prompt, from an answer to :func:`question`.

    Raises:
        JudgeError: one of them is missing.
    """
    matches = (by_word(positive), by_word(negative)) if words is None else (by_id(words[0]), by_id(words[1]))
    choices = dig(answer, "choices")
    by_index = {dig(choice, "index"): choice for choice in choices} if isinstance(choices, list) else {}
    return [difference(dig(by_index, index, "logprobs", "top_logprobs", 0), *matches) for index in range(prompts)]
