"""Asks a route's judge once before anything starts: a judge that cannot work is named in one line, in seconds."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from verl_air.errors import AirError, ConfigError
from verl_air.rewards.judge import JudgeClient, JudgeError
from verl_air.rewards.judge.client import make_client
from verl_air.rewards.judge.store import VerdictCache
from verl_air.rewards.judge.verdicts import WordReading
from verl_air.rewards.registry import BoundReward
from verl_air.rewards.routes import ScoringPlan
from verl_air.rewards.types import Sample

_TEXT = "Tokenizers differ: 3.14159, naïve café, ``x_i += 1``, 日本語, whitespace\t\n  and UPPER CASE."
_SHORT = "I cannot help with that."
_LIMIT_S = 120.0


async def probe_judge(
    plan: ScoringPlan, bound: BoundReward, row: Mapping[str, Any], max_tokens: int
) -> tuple[int, int]:
    """Have a route's reward judge a short and a long response to a row, through a judge that is elsewhere.

    Args:
        plan, bound: the recipe's, and the route's reward.
        row: its ``extra_info``.
        max_tokens: of a response.

    Returns:
        Requests and tokens for one row, at most about.

    Raises:
        ConfigError: nobody answers in time, the tokenizer is another one, the answer holds no verdict (no log-probs,
            no text), or the judge does not get to see the response.
    """
    where = f"judge {bound.judge!r}"
    try:
        return await asyncio.wait_for(_probe(plan, bound, row, max_tokens, where), _LIMIT_S)
    except asyncio.TimeoutError:
        raise ConfigError(
            f"{where} gave {bound.reward.name!r} no verdict on two replies in {_LIMIT_S:g} s: it is too slow to train "
            "with, or hangs"
        ) from None


async def _probe(
    plan: ScoringPlan, bound: BoundReward, row: Mapping[str, Any], max_tokens: int, where: str
) -> tuple[int, int]:
    settings = plan.judge_of(bound)
    if settings.cache is not None:
        await VerdictCache(settings.cache).get([])  # it can be opened
    quick = {"cache": None, "min_mass": 0.0, "attempts": 2, "total_timeout_s": min(60.0, settings.total_timeout_s)}
    client = make_client(settings.model_copy(update=quick), None, None)
    try:
        try:
            await client.server.model()
        except JudgeError as error:
            raise ConfigError(
                f"{where}: no judge answers at {settings.base_url} ({error}): start it, or correct the address"
            ) from None
        await _check_tokenizer(client, where)
        prompts, used = [], (0, 0)
        for response in (_SHORT, " ".join([_SHORT] * max(2, max_tokens // 8))):
            before = client.server.requests, client.server.tokens, client.server.prompt_tokens
            try:
                await _ask(bound, client, row, response)
            except JudgeError as error:
                raise ConfigError(f"{where} gives {bound.reward.name!r} no verdict: {error}") from None
            after = client.server.requests, client.server.tokens, client.server.prompt_tokens
            used = after[0] - before[0], after[1] - before[1]
            prompts.append((after[2] - before[2]) / max(1, used[0]))
        if min(prompts) > 0 and prompts[0] == prompts[1]:
            raise ConfigError(
                f"{where} does not see the response: short or long, it makes a prompt of {prompts[0]:g} tokens. "
                "Its chat template drops the assistant's turn; correct the template that it is served with"
            )
        return used
    finally:
        await client.close()


async def rehearse_judge(
    plan: ScoringPlan, bound: BoundReward, row: Mapping[str, Any], tokenizer: Any, longest: int | None
) -> None:
    """Write what a route's reward would ask of a judge that is not served yet; nothing is sent.

    Args:
        plan, bound, row: see :func:`probe_judge`.
        tokenizer: the judge's.
        longest: tokens that it will take, prompt and answer; None if there is no limit.

    Raises:
        ConfigError: the tokenizer has no chat template, or one that drops what is to be judged; it cannot spell the
            verdict words; the prompt is too long.
    """
    settings = plan.judge_of(bound)
    known = {"model": "-", "max_prompt_tokens": settings.max_prompt_tokens or longest or sys.maxsize, "cache": None}
    client = _Rehearsal(settings.model_copy(update=known), "-", tokenizer)
    try:
        await _ask(bound, client, row, _SHORT)
    except _UnsentError:
        pass
    except Exception as error:
        if isinstance(error, AirError) and not isinstance(error, JudgeError):
            raise
        told = " ".join(str(error).split())
        raise ConfigError(f"judge {bound.judge!r} cannot be asked by {bound.reward.name!r}: {told}") from error


class _UnsentError(Exception):
    """What would have been sent is written."""


class _Rehearsal(JudgeClient):
    """A judge that is not there. To questions by words it says the first, so that a reward asks the next one."""

    async def _judge(self, questions: Sequence[Any], words: Sequence[str], spellings: Any) -> list[WordReading]:
        return [WordReading([0.0] + [-99.0] * (len(words) - 1), 1.0, "")] * len(questions)

    async def _post(self, path: str, payload: dict[str, Any]) -> Any:
        raise _UnsentError


async def _ask(bound: BoundReward, client: JudgeClient, row: Mapping[str, Any], response: str) -> None:
    source = f"{row.get('domain') or ''}/{row.get('split') or ''}"
    outcome: Any = bound.reward.call(Sample(response, response, True, "", source, row), judge=client, **bound.options)
    if inspect.isawaitable(outcome):
        await outcome


async def _check_tokenizer(client: JudgeClient, where: str) -> None:
    """A server whose tokenizer is named tokenizes as that one does; servers without ``/tokenize`` are not asked."""
    if client.settings.base_url is None or client.settings.tokenizer is None or not client.settings.vllm:
        return
    expected = client.encode_text(_TEXT)
    payload = {"model": await client.server.model(), "prompt": _TEXT, "add_special_tokens": False}
    try:
        answer = await client.server.post("/tokenize", payload)
    except JudgeError:
        return
    found = answer.get("tokens") if isinstance(answer, dict) else None
    if isinstance(found, list) and found != expected:
        raise ConfigError(
            f"{where} has another tokenizer than judge.tokenizer={client.settings.tokenizer}: it makes {len(found)} "
            f"tokens of a text of which that one makes {len(expected)}, or others; name the judge's own"
        )
