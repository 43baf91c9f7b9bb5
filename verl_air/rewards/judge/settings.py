"""How judges are reached: the recipe's ``reward_kwargs.judge``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from verl_air.errors import ConfigError

IN_PROCESS_URL = "http://in-process"
"""Stands for the server of a judge that has none."""


@dataclass(frozen=True, eq=False)
class JudgeSettings:
    """How judges are reached, and how long one waits for them. Everything has a default that fits verl's own server.

    base_url: an OpenAI-compatible server, ``"https://host/v1"``; ``None`` takes the reward model that verl serves.
    in_process: a Hugging Face folder, read in each reward worker instead of being served; log-odds only. For small
        judges.
    api_key_env: name of the environment variable that holds the key; never the key itself.
    model: the model's name there; asked from ``GET /v1/models`` if ``None``.
    tokenizer: a Hugging Face folder or name. With verl's own reward model it is given. With a tokenizer, prompts travel
        as token ids and verdict words are checked; without one, the chat endpoint and its ``top_logprobs`` are used.
    chat_template_kwargs: for the tokenizer's chat template, such as ``{enable_thinking: false}``.
    vllm: the server is vLLM, so ask it for the log-probs of exactly the verdict tokens. Set it to false for a server
        that refuses fields it does not know.
    top_logprobs: how many log-probs to ask a server for that cannot give those of chosen tokens.
    request_timeout_s: for one attempt. total_timeout_s: for all attempts of one request, pauses included.
    attempts: at most so many per request; refusals (4xx, but 408 and 429) are final at once.
    backoff_s: the first pause; doubled each time, at most 8 s, with jitter.
    max_concurrency: requests in flight per worker process.
    deadline_s: for one call of any asynchronous or blocking reward function.
    max_chars: longer untrusted text is cut: the first and the last half stay, with a mark between.
    max_prompt_tokens: the longest prompt the judge takes; asked from the server if ``None``. Untrusted text is cut
        further until the prompt fits. Needs a tokenizer.
    cache: path of a SQLite file on a local disk that remembers verdicts; off if ``None``.
    """

    base_url: str | None = None
    in_process: str | None = None
    api_key_env: str | None = None
    model: str | None = None
    tokenizer: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    vllm: bool = True
    top_logprobs: int = 20
    request_timeout_s: float = 60.0
    total_timeout_s: float = 180.0
    attempts: int = 5
    backoff_s: float = 0.5
    max_concurrency: int = 64
    deadline_s: float = 600.0
    max_chars: int = 8000
    max_prompt_tokens: int | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        for name in ("request_timeout_s", "total_timeout_s", "backoff_s", "deadline_s"):
            if not _is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ConfigError(f"judge.{name} must be a number above 0, got {getattr(self, name)!r}")
        for name in ("attempts", "max_concurrency", "top_logprobs", "max_chars", "max_prompt_tokens"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"judge.{name} must be a whole number above 0, got {value!r}")
        if self.base_url is not None and not str(self.base_url).startswith(("http://", "https://")):
            raise ConfigError(f"judge.base_url must start with http:// or https://, got {self.base_url!r}")
        if self.in_process is not None and self.base_url not in (None, IN_PROCESS_URL):
            raise ConfigError("judge.base_url and judge.in_process are two ways to reach a judge: name one")

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> JudgeSettings:
        """Read ``reward_kwargs.judge``.

        Raises:
            ConfigError: an unknown key or an impossible value.
        """
        settings = dict(settings or {})
        known = [item.name for item in fields(cls)]
        for name in settings:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ConfigError(f"judge: unknown key {name!r}{hint}; known: {', '.join(known)}")
        return cls(**settings)

    def headers(self) -> dict[str, str]:
        """The authorisation header, if a key is configured.

        Raises:
            ConfigError: the environment variable is not set.
        """
        if self.api_key_env is None:
            return {}
        key = os.environ.get(self.api_key_env)
        if not key:
            raise ConfigError(
                f"judge.api_key_env: the environment variable {self.api_key_env} is not set in this process"
            )
        return {"Authorization": f"Bearer {key}"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
