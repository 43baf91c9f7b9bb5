"""Checks on the long columns (prompts, ground truths, extras), read a batch at a time.

Axes: S rows of all files, B rows of a batch, M messages of a batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_air.data.check.columns import MISSING, Columns
from verl_air.data.check.findings import Finding
from verl_air.data.check.gold import GoldCheck, Positions
from verl_air.data.check.lengths import PromptLengths
from verl_air.data.progress import with_progress
from verl_air.data.schema import open_table

BATCH = 8192
_CHAT_ROLES = pa.array(["system", "user", "assistant", "tool"])
_COLUMNS = ["prompt", "reward_model.style", "reward_model.ground_truth", "extra_info.extras"]


class Contents:
    """Streams the files once; afterwards ``requests`` holds the plain request of each intent [by intent code]."""

    def __init__(self, columns: Columns, gold: GoldCheck | None, lengths: PromptLengths | None) -> None:
        self._columns = columns
        self._gold = gold
        self._lengths = lengths
        self._positions = Positions()
        self._prompt_hash_S = np.zeros(len(columns), dtype=np.uint64)
        self.requests: list[str | None] = [None] * len(columns.values["intent_id"])

    def check(self) -> Iterator[Finding]:
        """All faults of the long columns, batch by batch, then those that show only in the whole."""
        for path, start in zip(self._columns.paths, self._columns.offsets.tolist(), strict=False):
            file = open_table(path)
            batches = file.iter_batches(batch_size=BATCH, columns=_COLUMNS)
            for batch in with_progress(batches, path.name, -(-file.metadata.num_rows // BATCH)):
                yield from self._batch(batch, start, str(path))
                start += batch.num_rows
        for file, message in self._positions.unbalanced():
            yield Finding("warning", "answer positions", file, -1, "reward_model.ground_truth", message)
        yield from self._repeated_prompts()

    def _batch(self, batch: pa.RecordBatch, start: int, file: str) -> Iterator[Finding]:
        yield from self._prompts(batch.column("prompt"), start)
        style_B, truth_B = (batch.column("reward_model").field(name).to_pylist() for name in ("style", "ground_truth"))
        extras_B = batch.column("extra_info").field("extras").to_pylist()
        for row, (style, truth, raw) in enumerate(zip(style_B, truth_B, extras_B, strict=True), start=start):
            for column, message in self._row(row, file, style, truth, raw):
                yield self._columns.finding("gold" if "choices" in column else column, row, column, message)

    def _row(self, row: int, file: str, style: Any, truth: Any, raw: Any) -> Iterator[tuple[str, str]]:
        columns = self._columns
        role, domain, split = (columns.value(name, row) for name in ("role", "domain", "split"))
        wanted = "rule" if role == "anchor" else "model"
        if style != wanted:
            yield "reward_model.style", f"{style!r} does not fit role {role!r}; {wanted!r} does"
        if not truth or not truth.strip():
            yield "reward_model.ground_truth", "is missing or empty"
            return
        try:
            extras = json.loads(raw or "{}")
        except json.JSONDecodeError as error:
            yield "extra_info.extras", f"is not JSON ({error})"
            return
        if not isinstance(extras, dict):
            yield "extra_info.extras", f"must be a JSON object, not {type(extras).__name__}"
            return
        intent = int(columns.code_S["intent_id"][row])
        if intent != MISSING and self.requests[intent] is None and isinstance(extras.get("request"), str):
            self.requests[intent] = extras["request"]
        if role == "anchor":
            self._positions.add(file, columns.value("context", row) or "", truth, extras)
        if self._gold is not None and domain is not None and role is not None:
            info = {
                "domain": domain,
                "role": role,
                "split": split,
                "intent_id": columns.value("intent_id", row),
                "index": int(columns.index_S[row]),
                "extras": raw,
            }
            yield from self._gold.faults(truth, info, extras)

    def _prompts(self, prompt_B: pa.ListArray, start: int) -> Iterator[Finding]:
        finding = self._columns.finding
        n_messages_B = pc.fill_null(pc.list_value_length(prompt_B), 0).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(n_messages_B == 0):
            yield finding("prompt", start + int(row), "prompt", "holds no message")
        messages = prompt_B.flatten()
        row_M = np.repeat(np.arange(len(prompt_B)), n_messages_B)
        known_M = pc.is_in(messages.field("role"), value_set=_CHAT_ROLES).to_numpy(zero_copy_only=False)
        for row in np.unique(row_M[~known_M]):
            yield finding("prompt", start + int(row), "prompt.role", f"is none of {', '.join(_CHAT_ROLES.to_pylist())}")
        content = pc.fill_null(messages.field("content"), "")
        blank_M = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(content)), 0).to_numpy(zero_copy_only=False)
        for row in np.unique(row_M[blank_M]):
            yield finding("prompt", start + int(row), "prompt.content", "is missing or empty")
        self._hash(content, messages.field("role"), n_messages_B, start)
        if self._lengths is not None:
            yield from self._too_long(prompt_B, content, row_M, start)

    def _hash(self, content: pa.Array, role: pa.Array, n_messages_B: np.ndarray, start: int) -> None:
        marked = pc.binary_join_element_wise(pc.fill_null(role, ""), content, "\x1f")
        offsets = pa.array(np.r_[0, np.cumsum(n_messages_B)].astype(np.int32))
        whole_B = pc.binary_join(pa.ListArray.from_arrays(offsets, marked), "\x1e").to_pylist()
        digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in whole_B)
        self._prompt_hash_S[start : start + len(whole_B)] = np.frombuffer(digests, dtype=np.uint64)

    def _too_long(self, prompt_B: pa.ListArray, content: pa.Array, row_M: np.ndarray, start: int) -> Iterator[Finding]:
        assert self._lengths is not None
        bytes_M = pc.binary_length(content).to_numpy(zero_copy_only=False)
        bytes_B = np.bincount(row_M, weights=bytes_M, minlength=len(prompt_B)).astype(int).tolist()
        prompts = [
            [{"role": m["role"] or "", "content": m["content"] or ""} for m in prompt or []]
            for prompt in prompt_B.to_pylist()
        ]
        for position, n in self._lengths.too_long(prompts, bytes_B):
            message = f"{n} tokens with the chat template, more than {self._lengths.limit}"
            yield self._columns.finding("prompt length", start + position, "prompt", message)

    def _repeated_prompts(self) -> Iterator[Finding]:
        """The same prompt twice for an intent of one split, which would count one context double."""
        intent_S, split_S = self._columns.code_S["intent_id"], self._columns.code_S["split"]
        order = np.lexsort((self._prompt_hash_S, split_S, intent_S))
        same = intent_S[order][1:] >= 0
        for key_S in (intent_S, split_S, self._prompt_hash_S):
            same &= key_S[order][1:] == key_S[order][:-1]
        for row, earlier in zip(order[1:][same], order[:-1][same], strict=True):
            intent = self._columns.value("intent_id", int(row))
            message = f"intent {intent!r} has this very prompt twice (see index {self._columns.index_S[earlier]})"
            yield self._columns.finding("repeated prompt", int(row), "prompt", message)
