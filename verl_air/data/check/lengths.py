"""Prompt lengths in tokens, with the chat template, and without tokenising what is surely short enough."""

from __future__ import annotations

from typing import Any

from verl_air.errors import DataError

_SLACK_A_MESSAGE = 16  # special tokens and prefixes that a tokenizer may add to each message


class PromptLengths:
    """Counts tokens of prompts near or above the limit.

    A token covers at least one byte of text, so a prompt of fewer bytes than the limit, less what the chat template
    adds, needs no tokenising.

    Args:
        tokenizer: a folder or hub name.
        limit: ``data.max_prompt_length`` of the recipe, in tokens.

    Raises:
        DataError: the tokenizer cannot be loaded.
    """

    def __init__(self, tokenizer: str, limit: int) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        except (OSError, ValueError) as error:
            raise DataError(f"--tokenizer {tokenizer}: cannot be loaded ({error})") from error
        self.limit = limit
        self.longest = 0
        self.tokenised = 0
        self._template = len(self._encode([[{"role": "user", "content": ""}]])[0])

    def too_long(self, prompts: list[list[dict[str, str]]], bytes_S: list[int]) -> list[tuple[int, int]]:
        """Position and number of tokens of the prompts above the limit."""
        near = [
            position
            for position, prompt in enumerate(prompts)
            if bytes_S[position] + self._template * len(prompt) + _SLACK_A_MESSAGE * len(prompt) > self.limit
        ]
        if not near:
            return []
        lengths = [len(ids) for ids in self._encode([prompts[position] for position in near])]
        self.tokenised += len(lengths)
        self.longest = max(self.longest, *lengths)
        return [(position, n) for position, n in zip(near, lengths, strict=True) if n > self.limit]

    def _encode(self, prompts: list[list[dict[str, str]]]) -> list[Any]:
        if self._tokenizer.chat_template is None:
            texts = ["\n".join(message["content"] for message in prompt) for prompt in prompts]
        else:
            texts = self._tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
        encoded = self._tokenizer(texts, add_special_tokens=self._tokenizer.chat_template is None)
        return list(encoded["input_ids"])
