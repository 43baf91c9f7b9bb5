"""Checks on the short columns: values, ids, completeness of meta-groups, and leaks between training and OOD.

They are columns of one table with a row per data row: text columns as categories, ``file`` and ``row`` for messages,
and ``intent``, a number for each pair of domain and intent id (-1: one of the two is missing).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from verl_air.data.schema import ROLES, SCHEMA, SPLITS, open_table
from verl_air.errors import DataError

Severity = Literal["error", "warning"]

_TOP = ("data_source", "ability")
_EXTRA = ("intent_id", "role", "context", "family", "domain", "split")
_PATHS = {name: name for name in _TOP} | {name: f"extra_info.{name}" for name in ("index", *_EXTRA)}


@dataclass(frozen=True)
class Finding:
    """One fault. row: position in the file from 0; -1 if it concerns the file as a whole."""

    severity: Severity
    check: str
    file: str
    row: int
    column: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.row < 0 else f"{self.file}, row {self.row}"
        return f"{self.severity}: {place}, {self.column}: {self.message} [{self.check}]"


@dataclass(frozen=True)
class FileSummary:
    """What a file contains."""

    rows: int
    intents: int
    anchors: int
    open: int
    splits: tuple[str, ...]
    domains: tuple[str, ...]


def findings_at(
    rows: pd.DataFrame, check: str, column: str, messages: str | Iterable[str], *, severity: Severity = "error"
) -> Iterator[Finding]:
    """A fault at each of some rows of the table; one message for all or one for each."""
    each = repeat(messages) if isinstance(messages, str) else messages
    for file, row, message in zip(rows["file"], rows["row"], each, strict=False):
        yield Finding(severity, check, file, row, column, message)


def read_short_columns(paths: Sequence[Path]) -> pd.DataFrame:
    """The table of all files' rows, in order.

    Raises:
        DataError: a file cannot be read, or a column is missing or of another type.
    """
    tables = []
    for path in paths:
        file = open_table(path)
        for wanted in SCHEMA:
            if fault := _type_fault(wanted.name, file.schema_arrow.field(wanted.name).type, wanted.type):
                raise DataError(f"{path}: {fault}")
        flat = file.read(columns=list(_PATHS.values())).flatten()
        columns = {
            name: flat[column].cast(pa.int64() if name == "index" else pa.string()) for name, column in _PATHS.items()
        }
        columns["row"] = pa.array(np.arange(flat.num_rows))
        columns["file"] = pa.DictionaryArray.from_arrays(np.zeros(flat.num_rows, dtype=np.int32), [str(path)])
        tables.append(pa.table(columns))
    rows = pa.concat_tables(tables).unify_dictionaries().to_pandas(strings_to_categorical=True)
    rows["index"] = rows["index"].fillna(-1).astype(np.int64)
    intent = rows.groupby(["domain", "intent_id"], observed=True, sort=False).ngroup()
    rows["intent"] = intent.fillna(-1).astype(np.int64)
    return rows


def _type_fault(name: str, got: pa.DataType, wanted: pa.DataType) -> str:
    """What is wrong with a type; wider offsets, another order of struct fields and further ones are fine."""
    if pa.types.is_struct(wanted) and pa.types.is_struct(got):
        present = {child.name: child.type for child in got}
        if missing := [child.name for child in wanted if child.name not in present]:
            return f"{name} lacks {', '.join(missing)}; it has {', '.join(present)}"
        return next(filter(None, (_type_fault(f"{name}.{c.name}", present[c.name], c.type) for c in wanted)), "")
    if pa.types.is_list(wanted) and (pa.types.is_list(got) or pa.types.is_large_list(got)):
        return _type_fault(name, got.value_type, wanted.value_type)
    same = got == wanted or (pa.types.is_string(wanted) and pa.types.is_large_string(got))
    return "" if same else f"column {name} is {got}, not {wanted}"


def summarise(rows: pd.DataFrame) -> dict[str, FileSummary]:
    """What each file contains."""
    return {
        str(file): FileSummary(
            rows=len(part),
            intents=part["intent"].nunique(),
            anchors=int((part["role"] == "anchor").sum()),
            open=int((part["role"] == "open").sum()),
            splits=tuple(sorted(part["split"].dropna().unique())),
            domains=tuple(sorted(part["domain"].dropna().unique())),
        )
        for file, part in rows.groupby("file", observed=False, sort=False)
    }


def check_structure(rows: pd.DataFrame, anchors: int, open_: int) -> Iterator[Finding]:
    """All of them. anchors, open_: rows that a visit to an intent takes."""
    for name in (*_TOP, *_EXTRA):
        yield from findings_at(rows[_blank(rows[name])], "values", _PATHS[name], "is missing or empty")
    yield from findings_at(rows[rows["index"] < 0], "values", _PATHS["index"], "is missing or negative")
    for name, known in (("role", ROLES), ("split", SPLITS)):
        unknown = rows[~rows[name].isin(known) & ~_blank(rows[name])]
        messages = (f"{value!r} is none of {', '.join(known)}" for value in unknown[name])
        yield from findings_at(unknown, "values", _PATHS[name], messages)
    slashed = rows[rows["domain"].isin([v for v in rows["domain"].cat.categories if "/" in v])]
    yield from findings_at(slashed, "values", _PATHS["domain"], "contains a slash, so <domain>/<id> is not unique")
    twice = rows[(rows["index"] >= 0) & rows.duplicated(["file", "index"])]
    yield from findings_at(twice, "id twice", _PATHS["index"], (f"{n} is twice in the file" for n in twice["index"]))
    yield from _sources(rows)
    yield from _intents(rows[rows["intent"] >= 0], anchors, open_)
    yield from _families(rows[rows["role"] == "open"])


def _sources(rows: pd.DataFrame) -> Iterator[Finding]:
    """``data_source`` is ``domain/split`` and ``ability`` the domain."""
    indices: dict[Any, Any] = rows.groupby(["data_source", "ability", "domain", "split"], observed=True).indices
    for (source, ability, domain, split), positions in indices.items():
        if source != f"{domain}/{split}":
            message = f"{source!r} is not '{domain}/{split}'"
            yield from findings_at(rows.iloc[positions], "data_source", "data_source", message)
        if ability != domain:
            message = f"{ability!r} is not the domain {domain!r}"
            yield from findings_at(rows.iloc[positions], "data_source", "ability", message, severity="warning")


def _intents(rows: pd.DataFrame, anchors: int, open_: int) -> Iterator[Finding]:
    """An intent is whole, in one file per split, and either trained on or held out."""
    column = _PATHS["intent_id"]
    is_train = rows["split"] == "train"
    held = rows[~is_train].drop_duplicates("intent")
    leaked = held[held["intent"].isin(rows.loc[is_train, "intent"])]
    messages = (f"{intent!r} is also a training intent" for intent in leaked["intent_id"])
    yield from findings_at(leaked, "intent leak", column, messages)

    files = rows.drop_duplicates(["intent", "split", "file"])
    again = files[files.duplicated(["intent", "split"])].drop_duplicates(["intent", "split"])
    messages = (f"{intent!r} is in two files of one split" for intent in again["intent_id"])
    yield from findings_at(again, "id twice", column, messages)

    groups = rows.assign(**{role: rows["role"] == role for role in ROLES}).groupby(["intent", "split"], observed=True)
    counts = groups[list(ROLES)].sum()
    short = counts[(counts["anchor"] < anchors) | (counts["open"] < open_)]
    first = rows.drop_duplicates(["intent", "split"]).set_index(["intent", "split"], drop=False).loc[short.index]
    messages = (
        f"{intent!r} has {n_anchors} anchor(s) and {n_open} open row(s) in split {split!r}; "
        f"a visit takes {anchors} and {open_}"
        for intent, split, n_anchors, n_open in zip(
            first["intent_id"], first["split"], short["anchor"], short["open"], strict=True
        )
    )
    yield from findings_at(first, "incomplete", _PATHS["role"], messages)


def _families(open_rows: pd.DataFrame) -> Iterator[Finding]:
    """A framing has one family, and a family is in OOD or elsewhere, never both."""
    column = _PATHS["family"]
    rows = open_rows[open_rows["domain"].notna() & ~_blank(open_rows["family"]) & ~_blank(open_rows["context"])]
    framings = rows.drop_duplicates(["domain", "context", "family", "split"]).astype({"family": object})
    first = framings.groupby(["domain", "context"], observed=True)["family"].transform("first")
    other = framings[framings["family"] != first]
    messages = (
        f"framing {context!r} is of family {family!r} here and {known!r} elsewhere"
        for context, family, known in zip(other["context"], other["family"], first[other.index], strict=True)
    )
    yield from findings_at(other, "family leak", column, messages)

    is_ood = rows["split"] == "ood"
    leaked = rows[is_ood].merge(rows.loc[~is_ood, ["domain", "family"]].drop_duplicates())
    messages = (f"family {name!r} is met in training or ID too, so it tests nothing new" for name in leaked["family"])
    yield from findings_at(leaked, "family leak", column, messages)


def _blank(values: pd.Series) -> pd.Series:
    return values.isna() | values.isin([value for value in values.cat.categories if not value.strip()])
