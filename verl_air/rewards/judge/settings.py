"""How judges are reached (``reward_kwargs.judges``), and the one way in which they fail."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from verl_air.errors import AirError, ConfigError
from verl_air.settings import Settings

SERVED = "verl"
"""The reserved name of the reward model that verl serves."""


class JudgeError(AirError, RuntimeError):
    """The judge gave no verdict: no connection, no time, a refusal, or an answer that holds none. The row abstains."""


class JudgeSettings(Settings):
    """How judges are reached, and how long to wait for them. The defaults fit verl's own server."""

    prefix: ClassVar[str] = "judge"

    base_url: str | None = Field(default=None, pattern=r"^https?://")
    """An OpenAI-compatible server, ``"https://host/v1"``; ``None`` takes the reward model that verl serves."""
    in_process: str | None = None
    """A Hugging Face folder, read in each reward worker instead of being served; log-odds only. For small judges."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; never the key itself."""
    model: str | None = None
    """The model's name at the server; ``None`` asks ``GET /v1/models``."""
    tokenizer: str | None = None
    """A Hugging Face folder or name; given by verl for its own reward model. With it, prompts are sent as token ids and
    verdict words are checked; without it, the chat endpoint and its ``top_logprobs`` are used."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """For the judge's chat template, such as ``{enable_thinking: false}``."""
    vllm: bool = True
    """The server is vLLM: ask for the log-probs of exactly the verdict tokens. False if it refuses such fields."""
    top_logprobs: PositiveInt = 20
    """How many log-probs to ask for where those of chosen tokens cannot be had."""
    min_mass: float = Field(default=0.5, ge=0.0, le=1.0)
    """The share of the probability that the verdict words must hold together; below it the row abstains."""
    request_timeout_s: PositiveFloat = 60.0
    """Per attempt."""
    total_timeout_s: PositiveFloat = 180.0
    """Per request: all attempts and pauses. Pauses that the server asks for (``Retry-After``) do not count, and may
    take as long again."""
    attempts: PositiveInt = 5
    """Per request at most; refusals (4xx other than 408 and 429) are final at once."""
    backoff_s: PositiveFloat = 0.5
    """The first pause; doubled each time, at most 8 s, with jitter."""
    max_concurrency: PositiveInt = 64
    """Requests in flight per worker process."""
    deadline_s: PositiveFloat = 600.0
    """Per call of any asynchronous or blocking reward function."""
    max_chars: PositiveInt = 8000
    """Longer untrusted text is cut: the first and the last half stay, with a mark between."""
    max_prompt_tokens: PositiveInt | None = None
    """The longest prompt that the judge accepts; ``None`` asks the server. Untrusted text is cut further until the
    prompt fits. Needs a tokenizer."""
    cache: str | None = None
    """Path of a SQLite file on a local disk that stores verdicts; ``None`` is off. They are keyed by what is sent and
    by the model: a fingerprint of its folder if it is on this machine, else its name and ``revision``."""
    revision: str | None = None
    """Of the weights at a server elsewhere; for the cache. Change it when they change under the same name."""
    max_requests: PositiveInt | None = None
    """For a hosted judge: the run stops before it sends more. Attempts count."""
    max_tokens: PositiveInt | None = None
    """The same for tokens, of prompts and answers; as the server reports them, and estimated before it has."""
    usage: str | None = None
    """Path of a SQLite file in which these are counted for all processes of the run: in the run folder, so that a
    resumed run continues the count."""

    @model_validator(mode="after")
    def _check_together(self) -> JudgeSettings:
        if self.in_process is not None and self.base_url is not None:
            raise ValueError("base_url and in_process are two ways to reach a judge: set one of them")
        if (self.max_requests or self.max_tokens) and self.usage is None:
            raise ValueError("max_requests and max_tokens need a file to count in: usage: ${run_dir}/judge.sqlite")
        return self

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is another judge than the reward model that verl serves."""
        return (self.base_url or self.in_process) is not None

    def headers(self) -> dict[str, str]:
        """The authorization header, if a key is configured.

        Raises:
            ConfigError: the environment variable is not set.
        """
        if self.api_key_env is None:
            return {}
        if not (key := os.environ.get(self.api_key_env)):
            raise ConfigError(
                f"judge.api_key_env: the environment variable {self.api_key_env} is not set in this process"
            )
        return {"Authorization": f"Bearer {key}"}


def read_judges(judge: Any, judges: Any) -> dict[str, JudgeSettings]:
    """The judges of a recipe by name: ``judges``, or ``judge`` as the short form of ``judges: {verl: ...}``.

    Raises:
        ConfigError: both are set, or the settings of one cannot be used.
    """
    if judge and judges:
        raise ConfigError("reward_kwargs: judge is the short form of judges: {verl: ...}; set one of the two")
    if not isinstance(judges or {}, Mapping):
        raise ConfigError(f"judges: expected a name and settings for each judge, got {judges!r}")
    found = {}
    for name, values in (judges or {SERVED: judge or {}}).items():
        try:
            found[str(name)] = JudgeSettings.from_mapping(values or {})
        except ConfigError as error:
            raise ConfigError(f"judges.{name}{str(error).removeprefix('judge')}" if judges else str(error)) from None
        if name != SERVED and not found[str(name)].is_elsewhere:
            raise ConfigError(
                f"judges.{name}: set base_url or in_process; only the name {SERVED} means the model that verl serves"
            )
    return found
