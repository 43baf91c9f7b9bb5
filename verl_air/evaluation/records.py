"""Scored rollouts, read from the JSONL that a run stores: one line per completion, not all of them whole if it died."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from verl_air.errors import DataError

REQUIRED = ("acc", "intent_id", "role", "split")

PromptKey = tuple[str, str, str]
"""Of a prompt within its meta-group: role, context, and :attr:`ScoredRollout.prompt`."""


def source_name(domain: str, split: str) -> str:
    """As in ``data_source``: ``safety/ood``."""
    return f"{domain}/{split}" if domain else split


@dataclass(frozen=True)
class ScoredRollout:
    """One scored completion.

    acc: 1.0 right, 0.0 wrong, NaN where the reward abstained.
    intent_id, role, context, family, domain, split: of the row, see ``verl_air.data.schema.ExtraInfo``.
    extras: the row's extras, decoded.
    prompt: distinguishes the prompts of a meta-group: the row's index in its file, or else its text.
    score: the total reward, NaN where there is none.
    group_size: rows that its meta-group should have in the file. split_intents: intents of its domain and split in the
        data file. 0 in files that do not say.
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
    group_size: int = 0
    split_intents: int = 0

    @property
    def judged(self) -> bool:
        """Whether there is a verdict."""
        return math.isfinite(self.acc)

    @property
    def sized(self) -> bool:
        """Whether the file can tell that rows are missing, and intents (a step of training has some of them only)."""
        return bool(self.group_size and (self.split_intents or self.split == "train"))

    @property
    def verdict(self) -> Literal["right", "wrong", "no verdict"]:
        """In words."""
        return "no verdict" if not self.judged else "right" if self.acc >= 1.0 else "wrong"

    @property
    def harmful(self) -> bool | None:
        """Whether the intent is harmful, where the domain says so."""
        value = self.extras.get("harmful")
        return value if isinstance(value, bool) else None

    @property
    def source(self) -> str:
        """Domain and split."""
        return source_name(self.domain, self.split)

    @property
    def prompt_key(self) -> PromptKey:
        """Equal for all completions of one prompt."""
        return self.role, self.context, self.prompt

    @classmethod
    def from_mapping(cls, row: Mapping[str, Any], where: str) -> ScoredRollout:
        """Read one row; ``where`` names it in messages.

        Raises:
            DataError: a column is missing or has a value that it cannot have.
        """
        missing = [name for name in REQUIRED if row.get(name) is None and not (name == "acc" and name in row)]
        if missing:
            raise DataError(f"{where}: no {', '.join(missing)}; was this stored by a run with an `air:` recipe?")
        text = {name: str(row.get(name) or "") for name in ("context", "family", "domain")}
        return cls(
            acc=_number(row["acc"], "acc", where),
            intent_id=str(row["intent_id"]),
            role=str(row["role"]),
            split=str(row["split"]),
            context=text["context"],
            family=text["family"] or text["context"],
            domain=text["domain"],
            extras=_extras(row.get("extras"), where),
            prompt=str(row["index"] if row.get("index") is not None else row.get("input", "")),
            score=_number(row.get("score"), "score", where),
            group_size=_count(row, "group_size", where),
            split_intents=_count(row, "split_intents", where),
        )


class JsonLines:
    """A JSONL file. Iterating yields (where, row): file and line number for messages, and the object.

    broken: numbers of the lines without a JSON object, filled by iterating. A run that dies leaves its last one broken.

    Raises:
        DataError: there is no such file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.broken: list[int] = []
        if not self.path.is_file():
            raise DataError(f"{path}: no such file")

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        self.broken.clear()
        with self.path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if isinstance(row, dict):
                    yield f"{self.path}, line {number}", row
                else:
                    self.broken.append(number)

    def rollouts(self) -> Iterator[tuple[dict[str, Any], ScoredRollout]]:
        """Each row with its rollout; verl's padding rows are left out.

        Raises:
            DataError: a column is missing.
        """
        for where, row in self:
            if not row.get("padding"):
                yield row, ScoredRollout.from_mapping(row, where)

    def require_whole(self) -> None:
        """To be called after iterating.

        Raises:
            DataError: a line has no JSON object.
        """
        if self.broken:
            raise DataError(
                f"{self.path}, line {self.broken[0]}: not a JSON object. "
                "If the run died while writing, `verl-air report` reads what is whole; else delete that line."
            )


def read_records(path: str | os.PathLike[str]) -> list[ScoredRollout]:
    """Read a JSONL file that a run stored under ``validation_data_dir`` or ``rollout_data_dir``.

    Raises:
        DataError: the file is missing, a line is not JSON, or a column is missing; the message names the line.
    """
    lines = JsonLines(path)
    rollouts = [rollout for _, rollout in lines.rollouts()]
    lines.require_whole()
    return rollouts


def _number(value: Any, name: str, where: str) -> float:
    """JSON has no NaN: verl writes it as null."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {name} is {value!r}, expected a number or null") from None


def _count(row: Mapping[str, Any], name: str, where: str) -> int:
    value = row.get(name) or 0
    if isinstance(value, int) and value >= 0:
        return value
    raise DataError(f"{where}: {name} is {value!r}, expected a number of rows or intents")


def _extras(raw: Any, where: str) -> Mapping[str, Any]:
    try:
        extras = json.loads(raw or "{}") if isinstance(raw, str | None) else raw
    except ValueError:
        extras = None
    if not isinstance(extras, Mapping):
        raise DataError(f"{where}: extras is {raw!r}, expected a JSON object")
    return extras
