"""Checks on the long columns (prompts, ground truths, extras), read a batch at a time.

Axes: B rows of a batch, M messages of a batch. ``rows`` is the table of :mod:`~verl_air.data.check.structure`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json
from tqdm import tqdm

from verl_air.data.check.gold import AnswerPositions, GoldCheck
from verl_air.data.check.structure import Finding, findings_at
from verl_air.data.schema import PromptMessage, open_table
from verl_air.errors import DataError
from verl_air.rewards import STYLES

BATCH = 8192
_CHAT_ROLES = ("system", "user", "assistant", "tool")
_INFO = ("file", "row", "intent", "index", "intent_id", "role", "context", "domain", "split")
_COLUMNS = ["prompt", "reward_model.style", "reward_model.ground_truth", "extra_info.extras"]
_KINDS = {"extra_info.extras.choices": "gold", "extra_info.intent_id": "id twice"}  # else named after the column
_SLACK_PER_MESSAGE = 16  # special tokens and prefixes that a tokenizer may add to each message


class PromptLengths:
    """Counts tokens of prompts near or above the limit, chat template included.

    A token covers at least one byte of text, so a prompt of fewer bytes than the limit, less what the chat template
    adds, needs no tokenizing. A tokenizer that cannot be loaded is a :class:`DataError`.
    """

    def __init__(self, tokenizer: str, limit: int) -> None:
        for library in ("transformers", "huggingface_hub"):  # their retries and hints are not ours to print
            logging.getLogger(library).setLevel(logging.ERROR)
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        except (OSError, ValueError) as error:
            raise DataError(f"--tokenizer {tokenizer}: cannot be loaded ({error})") from error
        self.limit = limit
        self._template = len(self._encode([[{"role": "user", "content": ""}]])[0])

    def too_long(self, prompts: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[int, int]]:
        """Position and number of tokens of the prompts above the limit."""
        added = self._template + _SLACK_PER_MESSAGE
        sizes = [sum(len(message["content"].encode()) + added for message in prompt) for prompt in prompts]
        near = [position for position, size in enumerate(sizes) if size > self.limit]
        ids = self._encode([prompts[position] for position in near]) if near else []
        return [(position, len(own)) for position, own in zip(near, ids, strict=True) if len(own) > self.limit]

    def _encode(self, prompts: Sequence[Sequence[Mapping[str, Any]]]) -> list[Any]:
        templated = self._tokenizer.chat_template is not None
        if templated:
            texts = self._tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
        else:
            texts = ["\n".join(message["content"] for message in prompt) for prompt in prompts]
        return list(self._tokenizer(texts, add_special_tokens=not templated)["input_ids"])


def prompt_limit(limit: int, tokenizer: str | None) -> Callable[[list[PromptMessage]], bool]:
    """Whether a prompt is within a limit in tokens; without a tokenizer, three bytes of UTF-8 count as a token."""
    if tokenizer is not None:
        lengths = PromptLengths(tokenizer, limit)
        return lambda prompt: not lengths.too_long([prompt])
    return lambda prompt: sum(len(m["content"].encode()) / 3 + _SLACK_PER_MESSAGE for m in prompt) <= limit


class ContentCheck:
    """Streams the files once; then ``requests`` and ``harmful`` hold each intent's request and kind, by its number."""

    def __init__(self, rows: pd.DataFrame, gold: GoldCheck, lengths: PromptLengths | None) -> None:
        self._rows, self._gold, self._lengths = rows, gold, lengths
        self._positions = AnswerPositions()
        self._styles: dict[str, str] = {}
        self.requests: dict[int, str] = {}
        self.harmful: dict[int, bool] = {}

    def check(self, paths: Iterable[Path]) -> Iterator[Finding]:
        """All faults of the long columns, batch by batch, then those that only all rows together show."""
        start, hashes = 0, [np.zeros(0, dtype=np.uint64)]
        for path in paths:
            file = open_table(path)
            batches = file.iter_batches(batch_size=BATCH, columns=_COLUMNS)
            n_batches = -(-file.metadata.num_rows // BATCH)
            for batch in tqdm(batches, path.name, n_batches, leave=False, disable=None):
                rows = self._rows.iloc[start : start + batch.num_rows]
                hashes.append(_hashes(batch.column("prompt")))
                yield from self._prompts(batch.column("prompt"), rows)
                yield from self._answers(batch, rows)
                start += batch.num_rows
        for name, message in self._positions.unbalanced():
            yield Finding("warning", "answer positions", name, -1, "reward_model.ground_truth", message)
        for style, name in list(self._styles.items())[1:]:
            message = f"response style {style}, and {', '.join(self._styles)} among all files: a recipe has one"
            yield Finding("error", "style", name, -1, "extra_info.extras.style", message)
        yield from self._repeated(np.concatenate(hashes))

    def _prompts(self, prompt_B: pa.ListArray, rows: pd.DataFrame) -> Iterator[Finding]:
        n_messages_B = pc.fill_null(pc.list_value_length(prompt_B), 0).to_numpy(zero_copy_only=False)
        yield from findings_at(rows[n_messages_B == 0], "prompt", "prompt", "contains no message")
        messages = prompt_B.flatten()
        row_M = np.repeat(np.arange(len(prompt_B)), n_messages_B)
        known_M = pc.is_in(messages.field("role"), value_set=pa.array(_CHAT_ROLES)).to_numpy(zero_copy_only=False)
        odd = rows.iloc[np.unique(row_M[~known_M])]
        yield from findings_at(odd, "prompt", "prompt.role", f"is none of {', '.join(_CHAT_ROLES)}")
        content = pc.utf8_trim_whitespace(pc.fill_null(messages.field("content"), ""))
        blank_M = pc.equal(pc.utf8_length(content), 0).to_numpy(zero_copy_only=False)
        yield from findings_at(rows.iloc[np.unique(row_M[blank_M])], "prompt", "prompt.content", "is missing or empty")
        if self._lengths is not None:
            prompts = [
                [{"role": message["role"] or "", "content": message["content"] or ""} for message in prompt or []]
                for prompt in prompt_B.to_pylist()
            ]
            for position, n in self._lengths.too_long(prompts):
                message = f"{n} tokens with the chat template, more than {self._lengths.limit}"
                yield from findings_at(rows.iloc[[position]], "prompt length", "prompt", message)

    def _answers(self, batch: pa.RecordBatch, rows: pd.DataFrame) -> Iterator[Finding]:
        reward_model, extras = batch.column("reward_model"), batch.column("extra_info").field("extras")
        styles, truths = (reward_model.field(name).to_pylist() for name in ("style", "ground_truth"))
        infos = zip(*(_values(rows[name]) for name in _INFO), strict=True)
        for values, style, truth, raw in zip(infos, styles, truths, extras.to_pylist(), strict=True):
            info: dict[str, Any] = dict(zip(_INFO, values, strict=True))
            info["extras"] = raw
            for column, message in self._answer(info, style, truth):
                check = _KINDS.get(column, column)
                yield Finding("error", check, info["file"], info["row"], column, message)

    def _answer(self, info: dict[str, Any], style: Any, truth: Any) -> Iterator[tuple[str, str]]:
        """Column and message of each fault of a row."""
        wanted = "rule" if info["role"] == "anchor" else "model"
        if style != wanted:
            yield "reward_model.style", f"{style!r} does not fit role {info['role']!r}; {wanted!r} does"
        if not truth or not truth.strip():
            yield "reward_model.ground_truth", "is missing or empty"
            return
        try:
            extras = from_json(info["extras"] or "{}")  # in two thirds of json's time
        except ValueError as error:
            yield "extra_info.extras", f"is not JSON ({error})"
            return
        if not isinstance(extras, dict):
            yield "extra_info.extras", f"must be a JSON object, not {type(extras).__name__}"
            return
        if (response_style := extras.get("style")) not in (None, *STYLES):
            yield "extra_info.extras.style", f"{response_style!r} is none of {', '.join(STYLES)}"
            return
        if response_style:
            self._styles.setdefault(response_style, info["file"])
        request = extras.get("request")
        if info["intent"] >= 0 and isinstance(request, str):
            known = self.requests.setdefault(info["intent"], request)
            if known != request:
                yield "extra_info.intent_id", f"{info['intent_id']!r} has another request elsewhere: {known[:60]!r}"
            if isinstance(extras.get("harmful"), bool):
                self.harmful[info["intent"]] = extras["harmful"]
        if info["role"] == "anchor":
            self._positions.add(info["file"], str(info["context"]), truth, extras)
        yield from self._gold.faults(truth, info, extras)

    def _repeated(self, hash_S: np.ndarray) -> Iterator[Finding]:
        """The same prompt twice for an intent of one split, which would count one context double."""
        key = ["intent", "split", "hash"]
        rows = self._rows.assign(hash=hash_S)[self._rows["intent"] >= 0]
        again = rows[rows.duplicated(key, keep=False)]
        earlier = again.groupby(key, observed=True)["index"].shift()
        twice = again[earlier.notna()]
        seen = zip(twice["intent_id"], earlier.dropna(), strict=True)
        messages = (f"intent {z!r} has exactly this prompt twice (see index {index:.0f})" for z, index in seen)
        yield from findings_at(twice, "repeated prompt", "prompt", messages)


def _values(column: pd.Series) -> list[Any]:
    """The values of a column of the table of rows, None where missing."""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return list(column.tolist())
    names = [*column.cat.categories, None]  # a missing value has code -1
    return [names[code] for code in column.cat.codes]


def _hashes(prompt_B: pa.ListArray) -> np.ndarray:
    """[B]: one number per prompt, from the roles and contents of its messages."""
    messages = prompt_B.flatten()
    roles, contents = (pc.fill_null(messages.field(name), "") for name in ("role", "content"))
    lengths = pc.fill_null(pc.list_value_length(prompt_B), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32))
    marked = pa.ListArray.from_arrays(offsets, pc.binary_join_element_wise(roles, contents, "\x1f"))
    texts = pc.binary_join(marked, "\x1e").to_numpy(zero_copy_only=False)
    return pd.util.hash_array(texts, categorize=False)
