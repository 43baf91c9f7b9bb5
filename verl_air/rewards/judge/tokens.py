"""The judge's tokenizer: prompts as token ids whose structure is proven, and verdict words as single tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards.judge.errors import JudgeError
from verl_air.rewards.judge.prompts import Message, Prompt, fields_of, fill, neutralise


class JudgeTokenizer:
    """Wraps a Hugging Face tokenizer."""

    def __init__(self, tokenizer: Any, chat_template_kwargs: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._chat_kwargs = dict(chat_template_kwargs)
        added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_tokens = tuple(sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True))
        # The unknown token marks strange characters, not structure.
        self._structural = {*tokenizer.all_special_ids, *added.values()} - {tokenizer.unk_token_id}
        self._references: dict[tuple[Any, ...], list[int]] = {}
        self._words: dict[str, tuple[int, ...]] = {}

    def encode(self, messages: Sequence[Message], chat: bool, generate: bool = True) -> list[int]:
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
            JudgeError: it did in spite of neutralising, so there is no prompt that could be trusted.
        """
        frozen = template if isinstance(template, str) else tuple((m["role"], m["content"]) for m in template)
        key = (frozen, chat, generate)
        if key not in self._references:
            plain = self.encode(fill(template, dict.fromkeys(fields_of(template), "x")), chat, generate)
            self._references[key] = self._skeleton(plain)
        if self._skeleton(ids) != self._references[key]:
            raise JudgeError("the text to be judged holds special tokens of the judge's tokenizer")

    def variants(self, word: str) -> tuple[int, ...]:
        """The single tokens that spell a verdict word, with and without a leading space.

        Raises:
            ConfigError: there is none.
        """
        if word not in self._words:
            spellings = [self._tokenizer.encode(text, add_special_tokens=False) for text in (word, f" {word}")]
            found = dict.fromkeys(
                ids[0] for ids in spellings if len(ids) == 1 and ids[0] != self._tokenizer.unk_token_id
            )
            if not found:
                pieces = self._tokenizer.convert_ids_to_tokens(spellings[0])
                raise ConfigError(
                    f"the verdict word {word!r} is not a single token of the judge's tokenizer but {pieces}; "
                    "choose another word"
                )
            self._words[word] = tuple(found)
        return self._words[word]

    def _skeleton(self, ids: Sequence[int]) -> list[int]:
        return [index for index in ids if index in self._structural]

    def safe(self, text: str) -> str:
        """Neutralise a text for this tokenizer."""
        return neutralise(text, self.special_tokens)
