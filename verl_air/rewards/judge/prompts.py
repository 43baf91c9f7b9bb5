"""From a template and untrusted texts to what is sent to a judge.

A template holds ``{field}`` marks, filled in one pass: braces inside a filled value are text. Values come from the
policy or from a data file, so they are first sanitized (nothing in them can end the quotation or pose as a turn of the
chat) and cut to a length. With the judge's tokenizer the finished prompt is also proven to have the template's special
tokens and no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from verl_air.errors import ConfigError, RewardError
from verl_air.rewards.judge.settings import JudgeError

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# C0 and C1 controls but tab and newline; soft hyphen, zero-width and bidirectional marks, variation selectors, tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e01ef\ud800-\udfff]"
)
# An opening angle bracket (or a look-alike) that could begin a tag or a special token, and square ones as in [INST].
_TAG_START = re.compile(r"[<\uff1c\ufe64](?=[A-Za-z/|!?<\uff5c\u2581_\uff1c\ufe64])")
_QUOTATION_MARK = "\u2039"  # single, angled
_SQUARE_TAG = re.compile(r"\[(/?[A-Z][A-Z_]{2,}/?)\]")
_SHORTEST_CUT = 32


class ChatMessage(TypedDict):
    """One message of a chat."""

    role: str
    content: str


Prompt = str | Sequence[ChatMessage]
"""A template: one user message, or a list of chat messages."""


def fields_of(template: Prompt) -> frozenset[str]:
    """The names of a template's fields."""
    texts = [template] if isinstance(template, str) else [message["content"] for message in template]
    return frozenset(name for text in texts for name in _FIELD.findall(text))


def require_response(reward: str, template: Prompt) -> None:
    """Check that a reward's template shows the judge what it should judge.

    Raises:
        ConfigError: the template uses neither ``{response}`` nor ``{answer}``.
    """
    if not fields_of(template) & {"response", "answer"}:
        raise ConfigError(f"{reward}: the template uses neither {{response}} nor {{answer}}, so it would judge nothing")


def fill(template: Prompt, values: Mapping[str, str]) -> list[ChatMessage]:
    """Fill a template with safe values, in one pass.

    Raises:
        RewardError: a value is missing.
    """
    if missing := sorted(fields_of(template) - set(values)):
        raise RewardError(
            f"the judge's template asks for {{{missing[0]}}}, which is not among {', '.join(sorted(values))}; "
            "correct the template, or put the value into the row's extras"
        )
    messages = [ChatMessage(role="user", content=template)] if isinstance(template, str) else template
    return [
        ChatMessage(role=m["role"], content=_FIELD.sub(lambda match: values[match[1]], m["content"])) for m in messages
    ]


def sanitize(text: str, special_tokens: Iterable[str] = ()) -> str:
    """Remove from a text whatever could pass for a tag, a special token or a turn of the chat.

    Invisible characters are dropped; an angle bracket that could open a tag becomes a quotation mark; ``[INST]`` and
    the like become ``(INST)``; a special token of the judge's tokenizer that remains is broken with a middle dot, or
    becomes a blank if it is a single character. Ordinary text keeps its meaning: ``a < b`` is unchanged.
    """
    text = _INVISIBLE.sub("", text)
    text = _TAG_START.sub(_QUOTATION_MARK, text)
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


class JudgeTokenizer:
    """A Hugging Face tokenizer: prompts as token ids whose structure is proven, and verdict words as single tokens."""

    def __init__(self, tokenizer: Any, chat_template_kwargs: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._chat_kwargs = dict(chat_template_kwargs)
        added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_tokens = tuple(sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True))
        # The unknown token stands for unusual characters; it is no structure.
        self._structural = {*tokenizer.all_special_ids, *added.values()} - {tokenizer.unk_token_id}
        self._references: dict[tuple[Any, ...], list[int]] = {}
        self._words: dict[str, tuple[int, ...]] = {}

    def encode(self, messages: Sequence[ChatMessage], chat: bool, generate: bool = True) -> list[int]:
        """Token ids of a prompt: through the chat template (up to the assistant's turn, if asked for), or bare."""
        if not chat:
            return self._tokenizer.encode("\n".join(message["content"] for message in messages))
        text = self._tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=generate, tokenize=False, **self._chat_kwargs
        )
        return self._tokenizer.encode(text, add_special_tokens=False)

    def check_structure(self, ids: Sequence[int], template: Prompt, chat: bool, generate: bool = True) -> None:
        """Prove that untrusted text brought no special token: they are those of the template, in the same order.

        Raises:
            JudgeError: it did, although it was sanitized, so the prompt cannot be trusted.
        """
        frozen = template if isinstance(template, str) else tuple((m["role"], m["content"]) for m in template)
        key = (frozen, chat, generate)
        if key not in self._references:
            plain = self.encode(fill(template, dict.fromkeys(fields_of(template), "x")), chat, generate)
            self._references[key] = self._skeleton(plain)
        if self._skeleton(ids) != self._references[key]:
            raise JudgeError("the text to be judged holds special tokens of the judge's tokenizer")

    def _skeleton(self, ids: Sequence[int]) -> list[int]:
        return [index for index in ids if index in self._structural]

    def variants(self, word: str) -> tuple[int, ...]:
        """The single tokens that spell a verdict word, with and without a leading space.

        Raises:
            ConfigError: there is none.
        """
        if word not in self._words:
            spellings = [self._tokenizer.encode(text, add_special_tokens=False) for text in (word, f" {word}")]
            single = {ids[0]: None for ids in spellings if len(ids) == 1 and ids[0] != self._tokenizer.unk_token_id}
            if not single:
                raise ConfigError(
                    f"the verdict word {word!r} is not a single token of the judge's tokenizer but "
                    f"{self._tokenizer.convert_ids_to_tokens(spellings[0])}; choose another word"
                )
            self._words[word] = tuple(single)
        return self._words[word]

    def words(self, positive: str, negative: str) -> tuple[Sequence[int], Sequence[int]]:
        """Token ids of the spellings of both verdict words.

        Raises:
            ConfigError: one token cannot tell them apart.
        """
        found = self.variants(positive), self.variants(negative)
        if set(found[0]) & set(found[1]):
            raise ConfigError(f"the verdict words {positive!r} and {negative!r} are one token of the judge's tokenizer")
        return found

    def safe(self, text: str) -> str:
        """Sanitize a text for this tokenizer."""
        return sanitize(text, self.special_tokens)


class PromptWriter:
    """Writes prompts for one judge.

    Args:
        tokenizer: the judge's Hugging Face tokenizer, if it is known.
        chat_template_kwargs: for its chat template.
        max_chars: longer untrusted texts are cut.
    """

    def __init__(self, tokenizer: Any, chat_template_kwargs: Mapping[str, Any], max_chars: int) -> None:
        self.tokens = None if tokenizer is None else JudgeTokenizer(tokenizer, chat_template_kwargs)
        self._max_chars = max_chars

    def messages(
        self, prompt: Prompt, fields: Mapping[str, str] | None, max_chars: int | None = None
    ) -> list[ChatMessage]:
        """The filled template."""
        safe = self.tokens.safe if self.tokens else sanitize
        limit = max_chars or self._max_chars
        return fill(prompt, {name: cut(safe(str(text)), limit) for name, text in (fields or {}).items()})

    def encode(
        self,
        prompt: Prompt,
        fields: Mapping[str, str] | None,
        longest: int | None,
        *,
        chat: bool = True,
        reserve: int = 1,
        generate: bool = True,
    ) -> list[int] | str:
        """Token ids of a prompt, its untrusted texts cut further until it fits; without a tokenizer the bare text.

        Args:
            prompt, fields: the template and its texts.
            longest: tokens that the judge accepts, ``reserve`` of them for its answer.
            chat: through the chat template.
            reserve: tokens that the judge may write.
            generate: end with the opening of the assistant's turn.

        Raises:
            JudgeError: it does not fit, or does not have the template's structure.
        """
        if self.tokens is None:
            return "\n".join(message["content"] for message in self.messages(prompt, fields))
        limit = self._max_chars
        while True:
            ids = self.tokens.encode(self.messages(prompt, fields, limit), chat, generate)
            if longest is None or len(ids) + reserve <= longest:
                self.tokens.check_structure(ids, prompt, chat, generate)
                return ids
            if not fields or limit <= _SHORTEST_CUT:
                raise JudgeError(
                    f"the judge's prompt has {len(ids)} tokens and only {longest - reserve} fit; "
                    "shorten the template or serve the judge with a larger max_model_len"
                )
            limit = min(limit, max(len(str(text)) for text in fields.values())) // 2
