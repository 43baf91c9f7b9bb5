"""From a template and untrusted texts to what is sent to a judge.

A template holds ``{field}`` marks, filled in one pass: braces inside a filled value are text. Values come from the
policy or from a data file, so they are first sanitized (nothing in them can pose as a turn of the chat) and cut. With
the judge's tokenizer the finished prompt is also proven to have the template's special tokens and no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
Fields = Mapping[str, str] | None
"""Untrusted texts for a template, by name."""


@dataclass(frozen=True)
class Rendering:
    """How a filled template becomes the judge's prompt.

    chat: through the chat template; if false, the bare text is completed.
    generate: end with the opening of the assistant's turn.
    bos: a bare text begins with the tokenizer's BOS token, if it has one.
    prefill: what the judge is made to have written already, verbatim.
    parts: contents as ``[{type: text, text: ...}]``.
    template_kwargs: for the chat template; the judge's own take precedence.
    max_response_tokens: ``{response}`` is cut to its first tokens, four characters each without a tokenizer.
    """

    chat: bool = True
    generate: bool = True
    bos: bool = True
    prefill: str = ""
    parts: bool = False
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_response_tokens: int | None = None

    def chat_fields(self, chat_template_kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The same for vLLM's chat endpoint, which renders itself; empty where the defaults do.

        Raises:
            ConfigError: the endpoint cannot do it.
        """
        if self.prefill.strip() != self.prefill:
            raise ConfigError(f"the prefill {self.prefill!r} begins or ends with a blank: name judge.tokenizer")
        fields: dict[str, Any] = {} if self.generate and not self.prefill else {"add_generation_prompt": False}
        if self.prefill:
            fields["continue_final_message"] = True
        if kwargs := {**self.template_kwargs, **chat_template_kwargs}:
            fields["chat_template_kwargs"] = kwargs
        return fields


CHAT = Rendering()


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

    Invisible characters are dropped; an angle bracket that could open a tag becomes a quotation mark; ``[INST]`` is
    ``(INST)``; a special token that remains is broken with a middle dot, or is a blank if it is a single character.
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
    """A Hugging Face tokenizer: prompts as token ids whose structure is proven, and the spellings of verdict words."""

    def __init__(self, tokenizer: Any, chat_template_kwargs: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._chat_kwargs = dict(chat_template_kwargs)
        added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_tokens = tuple(sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True))
        # The unknown token stands for unusual characters; it is no structure.
        self._structural = {*tokenizer.all_special_ids, *added.values()} - {tokenizer.unk_token_id}
        self._references: dict[str, list[int]] = {}
        self._words: dict[tuple[str, ...], Spellings] = {}

    def encode(self, messages: Sequence[ChatMessage], how: Rendering = CHAT) -> list[int]:
        """Token ids of a prompt."""
        return self._ids(self._render(messages, how), special=how.bos and not how.chat)

    def _ids(self, text: str, special: bool = False) -> list[int]:
        """As ``tokenizer.encode``, without the offsets, which cost half of its time."""
        fast = getattr(self._tokenizer, "backend_tokenizer", None)
        if fast is None or fast.truncation is not None or fast.padding is not None:
            return self._tokenizer.encode(text, add_special_tokens=special)
        return fast.encode_batch_fast([text], add_special_tokens=special)[0].ids

    def _render(self, messages: Sequence[ChatMessage], how: Rendering) -> str:
        if not how.chat:
            return "\n".join(message["content"] for message in messages) + how.prefill
        turns = [{**m, "content": [{"type": "text", "text": m["content"]}]} if how.parts else m for m in messages]
        text = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=how.generate, tokenize=False, **{**how.template_kwargs, **self._chat_kwargs}
        )
        return text + how.prefill

    def check_structure(self, ids: Sequence[int], template: Prompt, how: Rendering = CHAT) -> None:
        """Prove that untrusted text brought no special token: they are those of the template, in the same order.

        Raises:
            JudgeError: it did, although it was sanitized, so the prompt cannot be trusted.
            ConfigError: the chat template drops what is to be judged.
        """
        key = repr((template, how))
        if key not in self._references:
            marks = {name: f"the{name}here" for name in sorted(fields_of(template))}
            shown = self._render(fill(template, marks), how)
            if dropped := [name for name, mark in marks.items() if mark not in shown]:
                raise ConfigError(f"the judge's chat template drops {{{dropped[0]}}}; correct it in the judge's folder")
            plain = self.encode(fill(template, dict.fromkeys(marks, "x")), how)
            self._references[key] = self._skeleton(plain)
        if self._skeleton(ids) != self._references[key]:
            raise JudgeError("the text to be judged holds special tokens of the judge's tokenizer")

    def _skeleton(self, ids: Sequence[int]) -> list[int]:
        return [index for index in ids if index in self._structural]

    def spellings(self, words: Sequence[str]) -> Spellings:
        """The token ids of each word, with and without a leading blank: only the first token of each spelling if that
        tells the words apart, else all of them.

        Raises:
            ConfigError: the tokenizer cannot spell a word, or one word begins as another one ends.
        """
        key = tuple(words)
        if key not in self._words:
            self._words[key] = _distinguishing(key, [self._spell(word) for word in key])
        return self._words[key]

    def _spell(self, word: str) -> list[tuple[int, ...]]:
        unknown = self._tokenizer.unk_token_id
        encoded = [tuple(self._ids(text)) for text in (word, f" {word}")]
        # A SentencePiece tokenizer encodes with a blank in front; the piece without it follows a line break.
        pieces = [self._tokenizer.convert_tokens_to_ids(f"{blank}{word}") for blank in ("", "\u2581", "\u0120")]
        found = [*encoded, *((piece,) for piece in pieces if isinstance(piece, int))]
        usable = (ids for ids in found if ids and unknown not in ids and self._tokenizer.decode([ids[0]]).strip())
        return list(dict.fromkeys(usable))

    def named(self, text: str) -> str:
        """A text for the log, with the tokens in place of vLLM's names of their ids."""
        return re.sub(r"token_id:(\d+)", lambda match: self._tokenizer.decode([int(match[1])]), text)

    def first_tokens(self, text: str, count: int) -> str:
        """The part of a text that its first tokens hold."""
        ids = self._ids(text)
        return text if len(ids) <= count else self._tokenizer.decode(ids[:count])

    def safe(self, text: str) -> str:
        """Sanitize a text for this tokenizer."""
        return sanitize(text, self.special_tokens)


Spellings = tuple[tuple[tuple[int, ...], ...], ...]
"""Per word its spellings, each as token ids."""


def _distinguishing(words: Sequence[str], spelled: Sequence[Sequence[tuple[int, ...]]]) -> Spellings:
    for word, spellings in zip(words, spelled, strict=True):
        if not spellings:
            raise ConfigError(f"the judge's tokenizer cannot spell the verdict word {word!r}; choose another word")
    first = [{ids[0] for ids in spellings} for spellings in spelled]
    shared = {token for token in set().union(*first) if sum(token in tokens for tokens in first) > 1}
    if all(tokens - shared for tokens in first):
        return tuple(tuple((token,) for token in sorted(tokens - shared)) for tokens in first)
    flat = [(index, ids) for index, spellings in enumerate(spelled) for ids in spellings]
    for one, ids in flat:
        for other, longer in flat:
            if one != other and longer[: len(ids)] == ids:
                pair = f"{words[other]!r} begins like {words[one]!r}"
                raise ConfigError(f"the judge's tokenizer cannot distinguish the verdict words: {pair}")
    return tuple(map(tuple, spelled))


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

    def messages(self, prompt: Prompt, fields: Fields, how: Rendering = CHAT, max_chars: int = 0) -> list[ChatMessage]:
        """The filled template; with ``max_chars`` another limit than the recipe's."""
        safe = self.tokens.safe if self.tokens else sanitize
        texts = {name: safe(str(text)) for name, text in (fields or {}).items()}
        if (count := how.max_response_tokens) and "response" in texts:
            text = texts["response"]
            texts["response"] = self.tokens.first_tokens(text, count) if self.tokens else text[: 4 * count]
        return fill(prompt, {name: cut(text, max_chars or self._max_chars) for name, text in texts.items()})

    def encode(
        self, prompt: Prompt, fields: Fields, longest: int | None, *, how: Rendering = CHAT, reserve: int = 1
    ) -> list[int] | str:
        """Token ids of a prompt, its untrusted texts cut further until it fits; without a tokenizer the bare text.

        Of ``longest`` tokens that the judge accepts, ``reserve`` are for its answer.

        Raises:
            JudgeError: it does not fit, or does not have the template's structure.
        """
        if self.tokens is None:
            return "\n".join(message["content"] for message in self.messages(prompt, fields, how)) + how.prefill
        limit = self._max_chars
        while True:
            ids = self.tokens.encode(self.messages(prompt, fields, how, limit), how)
            if longest is None or len(ids) + reserve <= longest:
                self.tokens.check_structure(ids, prompt, how)
                return ids
            if not fields or limit <= _SHORTEST_CUT:
                raise JudgeError(
                    f"the judge's prompt has {len(ids)} tokens and only {longest - reserve} fit; "
                    "shorten the template or serve the judge with a larger max_model_len"
                )
            limit = min(limit, max(len(str(text)) for text in fields.values())) // 2
