"""Scored rollouts as records: what a run stores as JSONL, one line a completion."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_air.errors import DataError

REQUIRED = ("acc", "intent_id", "role", "split")


@dataclass(frozen=True)
class Record:
    """One scored completion.

    acc: 1.0 right, 0.0 wrong, NaN where the reward abstained.
    intent_id, role, context, family, domain, split: of the row, see ``verl_air.data.schema.ExtraInfo``.
    extras: the row's extras, decoded.
    """

    acc: float
    intent_id: str
    role: str
    split: str
    context: str = ""
    family: str = ""
    domain: str = ""
    extras: Mapping[str, Any] | None = None

    @property
    def judged(self) -> bool:
        """Whether there is a verdict."""
        return math.isfinite(self.acc)

    @classmethod
    def from_mapping(cls, row: Mapping[str, Any], where: str) -> Record:
        """Read one row; ``where`` names it in messages.

        Raises:
            DataError: a column is missing.
        """
        missing = [name for name in REQUIRED if row.get(name) is None and not (name == "acc" and name in row)]
        if missing:
            raise DataError(f"{where}: no {', '.join(missing)}; was this stored by a run with an `air:` recipe?")
        acc = row["acc"]
        return cls(
            acc=math.nan if acc is None else float(acc),
            intent_id=str(row["intent_id"]),
            role=str(row["role"]),
            split=str(row["split"]),
            context=str(row.get("context") or ""),
            family=str(row.get("family") or ""),
            domain=str(row.get("domain") or ""),
            extras=json.loads(row.get("extras") or "{}"),
        )


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """Read a JSONL file that a run stored under ``validation_data_dir`` or ``rollout_data_dir``.

    Raises:
        DataError: the file is missing, a line is no JSON, or a column is missing; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    records = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error})") from error
            if not row.get("padding"):
                records.append(Record.from_mapping(row, f"{path}, line {number}"))
    return records
