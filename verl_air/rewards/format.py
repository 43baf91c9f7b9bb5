r"""The response format: ``<think>reasoning</think><answer>answer</answer>`` (spec: section "Rewards" of the paper).

Only exact, lower-case tags count. Each occurs once, in this order; only white space stands before, between and after
the two blocks; neither is empty. In a boxed domain the answer also holds a non-empty ``\boxed{}``. Everything is found
with ``str.find`` and ``str.count``, so the time is linear in the length whatever the text is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from verl_air.errors import ConfigError

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BOXED = "\\boxed{"


def extract_answer(response: str) -> str | None:
    """Return the stripped answer of a well-formatted response, else ``None``."""
    if any(response.count(tag) != 1 for tag in TAGS):
        return None
    think, think_end, answer, answer_end = (response.find(tag) for tag in TAGS)
    if not think < think_end < answer < answer_end:
        return None
    outside = (
        response[:think],
        response[think_end + len("</think>") : answer],
        response[answer_end + len("</answer>") :],
    )
    reasoning = response[think + len("<think>") : think_end]
    text = response[answer + len("<answer>") : answer_end].strip()
    if any(part and not part.isspace() for part in outside) or not reasoning.strip() or not text:
        return None
    return text


def last_boxed(text: str) -> str | None:
    r"""Return what the last ``\boxed{...}`` holds, braces counted (escaped ones do not count); ``None`` if unclosed."""
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth, position = 1, start + len(_BOXED)
    begin = position
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 2
            continue
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[begin:position].strip()
        position += 1
    return None


@dataclass(frozen=True)
class FormatRule:
    """The format reward.

    right, wrong: its two values (paper: +1.25, -1.0).
    boxed: domains whose answer must also hold a box.
    prefix: what the chat template already put in the assistant's mouth, such as ``<think>``; read as part of the
        response.
    """

    right: float = 1.25
    wrong: float = -1.0
    boxed: tuple[str, ...] = ("math",)
    prefix: str = ""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any] | None) -> FormatRule:
        """Read ``reward_kwargs.format``.

        Raises:
            ConfigError: an unknown key or a value of the wrong type.
        """
        settings = dict(settings or {})
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(settings) - set(known)):
            raise ConfigError(f"format: unknown key(s) {', '.join(unknown)}; known: {', '.join(known)}")
        boxed = settings.get("boxed", cls.boxed)
        if isinstance(boxed, str) or not isinstance(boxed, Sequence):
            raise ConfigError(f"format.boxed must be a list of domains, got {boxed!r}")
        try:
            right, wrong = float(settings.get("right", cls.right)), float(settings.get("wrong", cls.wrong))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"format.right and format.wrong must be numbers ({error})") from error
        if not wrong <= right:
            raise ConfigError(f"format.wrong ({wrong}) must not be above format.right ({right})")
        return cls(right, wrong, tuple(boxed), str(settings.get("prefix") or ""))

    def parse(self, response: str, domain: str) -> str | None:
        """Return the answer, or ``None`` if the format is wrong."""
        answer = extract_answer(self.prefix + response)
        if answer is not None and domain in self.boxed and not last_boxed(answer):
            return None
        return answer
