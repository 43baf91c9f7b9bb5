"""Scored rollouts as records: what a run stores as JSONL, one line a completion."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from verl_air.errors import DataError
from verl_air.evaluation.jsonl import JsonLines, open_jsonl

REQUIRED = ("acc", "intent_id", "role", "split")


@dataclass(frozen=True)
class Record:
    """One scored completion.

    acc: 1.0 right, 0.0 wrong, NaN where the reward abstained.
    intent_id, role, context, family, domain, split: of the row, see ``verl_air.data.schema.ExtraInfo``.
    extras: the row's extras, decoded.
    prompt: tells the prompts of a meta-group apart: the row's index in its file, or else its text.
    score: the total reward, NaN where there is none.
    """

    acc: float
    intent_id: str
    role: str
    split: str
    context: str = ""
    family: str = ""
    domain: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = ""
    score: float = math.nan

    @property
    def judged(self) -> bool:
        """Whether there is a verdict."""
        return math.isfinite(self.acc)

    @property
    def right(self) -> bool:
        """Whether the verdict is full marks."""
        return self.acc >= 1.0

    @property
    def harmful(self) -> bool | None:
        """Whether the intent is harmful, where the domain says so."""
        value = self.extras.get("harmful")
        return value if isinstance(value, bool) else None

    @property
    def prompt_key(self) -> tuple[str, str, str]:
        """Of the prompt within its meta-group."""
        return self.role, self.context, self.prompt

    @classmethod
    def from_mapping(cls, row: Mapping[str, Any], where: str) -> Record:
        """Read one row; ``where`` names it in messages.

        Raises:
            DataError: a column is missing or holds what it cannot hold.
        """
        missing = [name for name in REQUIRED if row.get(name) is None and not (name == "acc" and name in row)]
        if missing:
            raise DataError(f"{where}: no {', '.join(missing)}; was this stored by a run with an `air:` recipe?")
        prompt = row["index"] if row.get("index") is not None else row.get("input", "")
        return cls(
            acc=_number(row["acc"], "acc", where),
            intent_id=str(row["intent_id"]),
            role=str(row["role"]),
            split=str(row["split"]),
            context=str(row.get("context") or ""),
            family=str(row.get("family") or row.get("context") or ""),
            domain=str(row.get("domain") or ""),
            extras=_extras(row.get("extras"), where),
            prompt=str(prompt),
            score=_number(row.get("score"), "score", where),
        )


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """Read a JSONL file that a run stored under ``validation_data_dir`` or ``rollout_data_dir``.

    Raises:
        DataError: the file is missing, a line is no JSON, or a column is missing; the message names the line.
    """
    lines = open_jsonl(path)
    records = list(records_of(lines))
    lines.require_whole()
    return records


def records_of(lines: JsonLines) -> Iterator[Record]:
    """The records of the lines that are whole; verl's padding rows are left out."""
    for where, row in lines:
        if not row.get("padding"):
            yield Record.from_mapping(row, where)


def _number(value: Any, name: str, where: str) -> float:
    """JSON has no NaN: verl writes it as null."""
    if value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {name} is {value!r}, expected a number or null") from None


def _extras(raw: Any, where: str) -> Mapping[str, Any]:
    try:
        extras = json.loads(raw or "{}") if isinstance(raw, str | None) else raw
    except ValueError:
        extras = None
    if not isinstance(extras, Mapping):
        raise DataError(f"{where}: extras is {raw!r}, expected a JSON object")
    return extras
