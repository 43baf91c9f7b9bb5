"""From a template and untrusted texts to what is sent: messages, or token ids that fit and whose structure holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verl_air.errors import ConfigError
from verl_air.rewards.judge.errors import JudgeError
from verl_air.rewards.judge.prompts import Message, Prompt, cut, fill, neutralise
from verl_air.rewards.judge.tokens import JudgeTokenizer

_SHORTEST_CUT = 32


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

    def messages(self, prompt: Prompt, fields: Mapping[str, str] | None, max_chars: int | None = None) -> list[Message]:
        """The filled template."""
        safe = self.tokens.safe if self.tokens else neutralise
        limit = max_chars or self._max_chars
        return fill(prompt, {name: cut(safe(str(text)), limit) for name, text in (fields or {}).items()})

    def text(self, prompt: Prompt, fields: Mapping[str, str] | None) -> str:
        """The filled template without a chat around it."""
        return "\n".join(message["content"] for message in self.messages(prompt, fields))

    def ids(
        self,
        prompt: Prompt,
        fields: Mapping[str, str] | None,
        *,
        chat: bool = True,
        longest: int | None = None,
        reserve: int = 1,
        generate: bool = True,
    ) -> list[int]:
        """Token ids of a prompt, its untrusted texts cut to ever shorter ones until it fits.

        Args:
            prompt, fields: the template and its texts.
            chat: through the chat template.
            longest: what the judge takes, in tokens; ``reserve`` of them for its answer.
            reserve: tokens that the judge may write.
            generate: end with the opening of the assistant's turn.

        Raises:
            JudgeError: it does not fit, or would not have the template's structure.
        """
        assert self.tokens is not None
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

    def words(self, positive: str, negative: str) -> tuple[Sequence[int], Sequence[int]]:
        """Token ids of the spellings of both verdict words.

        Raises:
            ConfigError: they cannot be told apart by one token.
        """
        assert self.tokens is not None
        found = self.tokens.variants(positive), self.tokens.variants(negative)
        if set(found[0]) & set(found[1]):
            raise ConfigError(f"the verdict words {positive!r} and {negative!r} are one token of the judge's tokenizer")
        return found
