"""Judge prompts around text that nobody may trust.

A template holds ``{field}`` marks, filled in one pass: braces inside a filled value are text. Values come from the
policy or from a data file, so before they are filled in they are neutralised (nothing in them can end the quotation or
speak with the chat template's voice) and cut to a length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from verl_air.errors import RewardError

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# C0 and C1 controls but tab and newline; soft hyphen, zero-width and bidirectional marks, variation selectors, tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e01ef\ud800-\udfff]"
)
# An opening angle bracket (or a look-alike) that could begin a tag or a special token, and square ones as in [INST].
_TAG_START = re.compile(r"[<\uff1c\ufe64](?=[A-Za-z/|!?<\uff5c\u2581_\uff1c\ufe64])")
_HARMLESS = "\u2039"  # a single angle quotation mark
_SQUARE_TAG = re.compile(r"\[(/?[A-Z][A-Z_]{2,}/?)\]")


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str


Prompt = str | Sequence[Message]
"""A template: one user message, or a list of chat messages."""


def fields_of(template: Prompt) -> frozenset[str]:
    """The names of a template's fields."""
    texts = [template] if isinstance(template, str) else [message["content"] for message in template]
    return frozenset(name for text in texts for name in _FIELD.findall(text))


def fill(template: Prompt, values: Mapping[str, str]) -> list[Message]:
    """Fill a template with safe values, in one pass.

    Raises:
        RewardError: a value is missing.
    """
    if missing := sorted(fields_of(template) - set(values)):
        raise RewardError(
            f"the judge's template asks for {{{missing[0]}}}, which is not among {', '.join(sorted(values))}; "
            "correct the template, or put the value into the row's extras"
        )
    messages = [Message(role="user", content=template)] if isinstance(template, str) else template
    return [Message(role=m["role"], content=_FIELD.sub(lambda match: values[match[1]], m["content"])) for m in messages]


def neutralise(text: str, special_tokens: Iterable[str] = ()) -> str:
    """Take from a text all means to pass for a tag, a special token or a turn of the chat.

    Invisible characters vanish; an angle bracket that could open a tag becomes a quotation mark; ``[INST]`` and its
    kind become ``(INST)``; a special token of the judge's tokenizer that is still there is broken with a middle dot, or
    is a blank if it is a single character. Ordinary text keeps its meaning: ``a < b`` stays as it is.
    """
    text = _INVISIBLE.sub("", text)
    text = _TAG_START.sub(_HARMLESS, text)
    text = _SQUARE_TAG.sub(r"(\1)", text)
    for token in special_tokens:
        if token in text:
            text = text.replace(token, " " if len(token) == 1 else f"{token[0]}·{token[1:]}")
    return text


def cut(text: str, max_chars: int) -> str:
    """Shorten a text to about ``max_chars``: the first and the last half stay, and a mark says how much is missing."""
    if len(text) <= max_chars:
        return text
    head, tail = (max_chars + 1) // 2, max_chars // 2
    return f"{text[:head]} [... {len(text) - head - tail} characters left out ...] {text[len(text) - tail :]}"
