"""``guard_judge``: a published guard model as the judge of harm, by name or by a data file of your own.

A guard is a YAML file (``guards/*.yaml``): the prompt it was trained with, and how its answer is read. ``read: text``
has it write, and finds the verdict by a pattern; ``read: words`` compares the probabilities of the verdict words, and
harm is their expectation. An answer that cannot be read abstains; it is never "safe".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import cache
from math import exp
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, PositiveInt, model_validator

from reward_fns.generative_judge import require_one_group
from verl_air.rewards import (
    ABSTAIN,
    ConfigError,
    JudgeClient,
    JudgeError,
    Outcome,
    Prompt,
    Rendering,
    Sample,
    Settings,
    Verdict,
    register_reward,
    require_response,
)

FOLDER = Path(__file__).with_name("guards")


class Guard(Settings):
    """A guard model's file."""

    prefix: ClassVar[str] = "guard"

    source: str
    """Where the format is published."""
    licence: str
    prompt: str | list[dict[Literal["role", "content"], str]]
    """Bare text or one user message, or a conversation; ``{request}`` and ``{response}`` are filled in."""
    guidelines: dict[str, str] = Field(default_factory=dict)
    """One question per guideline, in place of ``<guideline>``; the worst answer counts."""
    chat: bool = True
    generate: bool = True
    bos: bool = True
    parts: bool = False
    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    max_response_tokens: PositiveInt | None = None
    """These six: see :class:`~verl_air.rewards.Rendering`."""
    read: Literal["text", "words"]
    """How the answer is read, unless the recipe says otherwise."""
    harm: dict[str, float]
    """Verdict word -> harm, from 0 to 1."""
    prefill: str = ""
    """What the guard writes before the verdict word; for ``words``."""
    pattern: str | None = None
    """Regular expression (multi-line, case ignored) with one group, which catches a verdict word; for ``text``."""
    refusal: str | None = None
    """The same for ``yes`` or ``no`` to "is the response a refusal?"."""
    max_tokens: PositiveInt = 64
    """For ``text``."""

    @model_validator(mode="after")
    def _check_reading(self) -> Guard:
        if any(not 0.0 <= value <= 1.0 for value in self.harm.values()) or len(set(self.harm.values())) < 2:
            raise ValueError(f"harm must map at least two words to different numbers from 0 to 1, got {self.harm}")
        if self.read == "text" and self.pattern is None:
            raise ValueError("read: text needs a pattern")
        for name, pattern in (("pattern", self.pattern), ("refusal", self.refusal)):
            if pattern is not None:
                require_one_group(name, pattern)
        return self

    def prompts(self) -> list[Prompt]:
        """The template, once per guideline."""
        return [_replace(self.prompt, text) for text in self.guidelines.values()] or [_replace(self.prompt, "")]

    def rendering(self, prefill: str = "") -> Rendering:
        """How the templates become the guard's prompt."""
        names = ("chat", "generate", "bos", "parts", "template_kwargs", "max_response_tokens")
        return Rendering(prefill=prefill, **{name: getattr(self, name) for name in names})

    def read_text(self, text: str) -> tuple[float, bool | None]:
        """Harm, and whether the response is a refusal, if the guard says so.

        Raises:
            JudgeError: the text holds no verdict, or several.
        """
        harm = {word.casefold(): value for word, value in self.harm.items()}
        word = _caught(self.pattern, text)
        if word not in harm:
            raise JudgeError(f"the guard's answer cannot be read: {text[:200]!r}")
        return harm[word], {"yes": True, "no": False}.get(_caught(self.refusal, text) or "")


def _replace(prompt: str | list[dict[Any, str]], guideline: str) -> Prompt:
    if isinstance(prompt, str):
        return prompt.replace("<guideline>", guideline)
    return [{"role": m["role"], "content": m["content"].replace("<guideline>", guideline)} for m in prompt]


def _caught(pattern: str | None, text: str) -> str | None:
    """The one word that a pattern catches in a text, in lower case."""
    words = {word.casefold() for word in re.findall(pattern, text, re.IGNORECASE | re.MULTILINE)} if pattern else set()
    return words.pop() if len(words) == 1 else None


def guard_names() -> list[str]:
    """The shipped guards, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


@cache
def load_guard(guard: str) -> Guard:
    """Read a shipped guard by name, or a file by path.

    Raises:
        ConfigError: there is none, or it cannot be used; the message names the file and the key.
    """
    file = FOLDER / f"{guard}.yaml" if guard in guard_names() else Path(guard).expanduser()
    if not file.is_file():
        raise ConfigError(f"guard_judge: no guard or file {guard!r}; shipped guards: {', '.join(guard_names())}")
    try:
        found = Guard.from_mapping(yaml.safe_load(file.read_text(encoding="utf-8")))
        for prompt in found.prompts():
            require_response("guard", prompt)
    except (OSError, yaml.YAMLError, KeyError) as error:
        raise ConfigError(f"guard_judge: cannot read {file}: {type(error).__name__}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"guard_judge: {file}: {error}") from error
    return found


def _check(*, guard: str, read: str | None, part: str, harm_from: float, **_: object) -> None:
    found = load_guard(guard)
    if read not in (None, "text", "words"):
        raise ConfigError(f"guard_judge: read must be text or words, got {read!r}")
    if read == "text" and found.pattern is None:
        raise ConfigError(f"guard_judge: {guard} has no pattern, so it cannot be read as text")
    if part not in ("response", "answer"):
        raise ConfigError(f"guard_judge: part must be response or answer, got {part!r}")
    if not 0.0 < harm_from <= 1.0:
        raise ConfigError(f"guard_judge: harm_from must be above 0 and at most 1, got {harm_from}")


@register_reward("guard_judge", check=_check)
async def guard_judge(
    sample: Sample,
    judge: JudgeClient,
    *,
    guard: str,
    read: str | None = None,
    part: str = "response",
    harm_from: float = 0.5,
    graded: bool = False,
    right: float = 1.25,
    wrong: float = -1.0,
) -> Outcome:
    """Right if harm is below ``harm_from``, and a benign request was not refused where the guard reports refusals.

    With ``graded`` the reward falls linearly with harm, from ``right`` to ``wrong``. A row is benign if its extras say
    ``harmful: false``; a guard that reports refusals abstains on it if it did not say whether the response is one.
    """
    found = load_guard(guard)
    texts = dict(sample.fields)
    if part == "answer" and sample.answer is not None:
        texts["response"] = sample.answer
    if (read or found.read) == "words":
        how = found.rendering(found.prefill)
        read_words = await judge.log_probs(found.prompts(), list(found.harm), fields=texts, how=how)
        harm = max(_expectation(log_probs, list(found.harm.values())) for log_probs in read_words)
    else:
        asked = (
            judge.complete(prompt, fields=texts, max_tokens=found.max_tokens, how=found.rendering())
            for prompt in found.prompts()
        )
        answers = [found.read_text(text) for text in await asyncio.gather(*asked)]
        harm = max(value for value, _ in answers)
        if found.refusal is not None and sample.extras.get("harmful") is False:
            refusals = {refused for _, refused in answers}
            if True in refusals:
                return Verdict(wrong, False)
            if None in refusals and harm < harm_from:  # a harmful reply is wrong, refused or not
                return ABSTAIN
    share = harm if graded else float(harm >= harm_from)
    return Verdict(right + (wrong - right) * share, harm < harm_from)


def _expectation(log_probs: Sequence[float], values: Sequence[float]) -> float:
    weights = [exp(value - max(log_probs)) for value in log_probs]
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
