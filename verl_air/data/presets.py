"""Published safety sets as they are: which column holds the request, and which rows are harmful (``presets.yaml``).

A row's kind comes from the set's own label. Where a set has none, it is what the option says under which the file was
given. A column that looks like a label is never ignored: it is used, or the build stops and says how to map it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field

from verl_air.data.intents import ExcludeRow, require_text
from verl_air.data.sources import Source, SourceRow
from verl_air.errors import DataError
from verl_air.settings import Settings, closest

KINDS = ("harmful", "benign")
REQUEST_COLUMNS = ("goal", "request", "prompt", "behavior", "instruction", "question", "text")
LABEL_COLUMNS = (
    *("label", "labels", "kind", "safety", "is_safe", "safe", "benign", "is_benign", "harmless"),
    *("is_harmful", "harmful", "unsafe", "is_unsafe", "toxic", "toxicity", "prompt_harm_label", "verdict"),
)
_WORDS = {
    **dict.fromkeys(("safe", "benign", "harmless", "unharmful", "non-toxic", "not harmful", "not toxic"), "benign"),
    **dict.fromkeys(("unsafe", "harmful", "toxic", "malicious"), "harmful"),
}
_FEW_VALUES = 20  # a column with more is not a label


class SafetyPreset(Settings):
    """How one set is read; ``presets.yaml`` describes the keys."""

    prefix: ClassVar[str] = "preset"

    columns: list[str] = Field(default_factory=list)
    request: str
    category: str | None = None
    pair: dict[str, Any] | None = None
    kind: str | None = None
    label: dict[str, Any] | None = None
    by_prefix: bool = False
    by_name: dict[str, str] = Field(default_factory=dict)
    context: str | None = None
    contextual: dict[str, str] | None = None

    def used(self) -> list[str]:
        """The columns that are read."""
        tables = (table["column"] for table in (self.label, self.contextual) if table)
        return list(dict.fromkeys(filter(None, (self.request, self.category, self.context, *tables))))

    def kind_of(self, source: Source, row: SourceRow, given: str) -> str:
        """``harmful`` or ``benign``; ``given``: by the option under which the file was named.

        Raises:
            ExcludeRow: the label says that the row is to be left out.
            DataError: the label has a value that is not known, or nothing tells which the set is.
        """
        if self.label is not None:
            column, values = source.find_column(self.label["column"]), self.label["values"]
            value = row.text(column)
            found = next((kind for known, kind in values.items() if str(known).casefold() == value.casefold()), None)
            if found is None:
                raise DataError(
                    f"{row.where}, column {column!r}: {value!r} says neither harmful nor benign. Known: "
                    f"{', '.join(values)}. Map it: --label {column}:{value or 'VALUE'}=harmful,..."
                )
            if found not in KINDS:
                raise ExcludeRow(found)
            return str(found)
        if self.by_name:
            parts = re.split(r"[^a-z0-9]+", source.name.casefold())
            kinds = {kind for part, kind in self.by_name.items() if part in parts}
            if len(kinds) != 1:
                raise DataError(
                    f"{source.name}: the set has a harmful and a benign file with the same columns, and the name has "
                    f"none of {', '.join(self.by_name)}. Rename the file, so that it says which it is."
                )
            return kinds.pop()
        if self.kind not in (None, given):
            raise DataError(f"{source.name}: a set of {self.kind} requests; give it under --source, not under --benign")
        return given

    def request_of(self, source: Source, row: SourceRow) -> str:
        """The request, with its context below it.

        Raises:
            ExcludeRow: there is no request.
            DataError: a contextual row has no context.
        """
        request = require_text(row, source.find_column(self.request))
        if context := row.text(source.find_column(self.context)) if self.context else "":
            return f"{request}\n\n{context}"
        if self.contextual:
            column = source.find_column(self.contextual["column"])
            if row.text(column) == self.contextual["value"]:
                raise DataError(
                    f"{row.where}, column {self.context!r}: empty, but {column} is {self.contextual['value']!r}. "
                    "Restore the context, or remove the row."
                )
        return request

    def extras_of(self, source: Source, row: SourceRow) -> dict[str, str]:
        """What evaluation can tell rows apart by, and what pairs a harmful row with a benign one."""
        extras = {"category": row.text(source.find_column(self.category))} if self.category else {}
        if self.pair:
            values = (row.text(source.find_column(column)) for column in self.pair["columns"])
            extras["pair"] = "/".join(re.sub(self.pair.get("remove", "$"), "", value) for value in values)
        return extras


@cache
def presets() -> Mapping[str, SafetyPreset]:
    """The presets by name."""
    content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return {name: SafetyPreset.from_mapping(values) for name, values in content.items()}


def split_preset(name: str) -> tuple[str | None, str]:
    """``xstest:FILE`` taken apart. What is a file, or a hub name with a configuration, has no preset in front."""
    head, colon, rest = name.partition(":")
    if not colon or Path(name).exists() or "/" in head:
        return None, name
    if head not in presets():
        raise DataError(f"--source {name}: no preset {head!r}{closest(head, presets())}; known: {', '.join(presets())}")
    return head, rest


def preset_for(source: Source, name: str | None, column: str | None, label: str | None) -> SafetyPreset:
    """How a source is read: by a preset's name, or by its columns where none is given.

    Args:
        column: the column of the request, if the user named it.
        label: ``COLUMN:VALUE=harmful,VALUE=benign`` of the user, or ``none`` to have no label.

    Raises:
        DataError: a column is missing, or one that looks like a label cannot be read.
    """
    columns = {known.casefold() for known in source.columns}
    preset = presets()[name] if name else None
    if preset and (missing := [used for used in preset.used() if used.casefold() not in columns]):
        raise DataError(
            f"{source.name}: no {name} file: it lacks the column(s) {', '.join(map(repr, missing))}; the columns "
            f"are {', '.join(source.columns)}. Leave {name}: out, or name the set that it is."
        )
    if name is None and column is None:
        fits = [p for p in presets().values() if not p.by_prefix and {c.casefold() for c in p.columns} <= columns]
        preset = max(fits, key=lambda p: len(p.columns), default=None)
    if preset is None:
        if column is not None:
            source.require(column)
        preset = SafetyPreset(request=source.find_column(*([column] if column else REQUEST_COLUMNS)))
    if label is not None:
        return preset.model_copy(update={"label": _read_label(label), "by_name": {}})
    if preset.label is None and (guessed := _guessed_label(source, preset)):
        return preset.model_copy(update={"label": guessed, "by_name": {}})
    return preset


def _read_label(label: str) -> dict[str, Any] | None:
    if label == "none":
        return None
    column, _, pairs = label.partition(":")
    values = dict(pair.split("=", 1) for pair in pairs.split(",") if "=" in pair)
    if not values or not set(values.values()) <= {*KINDS, "drop"}:
        raise DataError(f"--label {label}: write COLUMN:VALUE=harmful,VALUE=benign (or =drop), or none")
    return {"column": column, "values": {v: "dropped by --label" if k == "drop" else k for v, k in values.items()}}


def _guessed_label(source: Source, preset: SafetyPreset) -> dict[str, Any] | None:
    """The mapping of a column that looks like a label; None if there is no such column."""
    used = {column.casefold() for column in preset.used()}
    labels = []
    for column in source.columns:
        if column.casefold() in used:
            continue
        first: dict[str, str] = {}  # the place of each value
        for row in source.rows:
            value = row.values.get(column)
            first.setdefault("" if value is None else str(value).strip(), row.where)
            if len(first) > _FEW_VALUES:
                break
        kinds = {value: _WORDS.get(value.casefold()) for value in first}
        if column.casefold() not in LABEL_COLUMNS and (len(first) > _FEW_VALUES or not any(kinds.values())):
            continue
        if unknown := [value for value, kind in kinds.items() if kind is None]:
            shown = ",".join(f"{value}=harmful|benign" for value in list(kinds)[:4])
            raise DataError(
                f"{first[unknown[0]]}, column {column!r}: the column may say which rows are harmful, and "
                f"{unknown[0]!r} is not known. Its values are {', '.join(map(repr, list(kinds)[:6]))}. Map it: --label "
                f"'{column}:{shown}'; --label none ignores it."
            )
        labels.append({"column": column, "values": kinds})
    if len(labels) > 1:
        raise DataError(
            f"{source.name}: the columns {', '.join(repr(label['column']) for label in labels)} all say which rows are "
            "harmful. Choose one with --label."
        )
    return labels[0] if labels else None
