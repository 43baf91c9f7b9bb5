"""The data row: one prompt of one meta-group, as verl reads it from parquet.

A meta-group is one intent rendered as anchors (checked by a rule) and open variants (scored by a judge).

================  ==================================================================================================
``data_source``   domain and split, ``"safety/ood"``; the key under which verl reports validation metrics
``prompt``        chat messages, ``[{"role": ..., "content": ...}]``
``ability``       the domain again; verl's own column
``reward_model``  ``{"style": "rule" | "model", "ground_truth": str}``: ``rule`` for anchors, ``model`` for open rows
``extra_info``    see :class:`ExtraInfo`
================  ==================================================================================================

The schema is explicit and written with pyarrow itself: metadata that one release of ``datasets`` writes is not always
read by another (verl's tracker, 2723).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from verl_air.errors import DataError

Role = Literal["anchor", "open"]
Split = Literal["train", "id", "ood"]

ROLES: tuple[Role, ...] = ("anchor", "open")
SPLITS: tuple[Split, ...] = ("train", "id", "ood")

ROWS_A_GROUP = 20_000
"""Rows of one parquet row group: what a reader holds in memory at a time."""


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str


class RewardModelField(TypedDict):
    """verl's column ``reward_model``."""

    style: str
    ground_truth: str


class ExtraInfo(TypedDict):
    """What the reward functions, the trainer and the evaluation know about a row.

    index: position of the row in its file.
    intent_id: the meta-group; unique over all domains. A training intent stands in no other split; a held-out one may
        stand in both ID and OOD, in other framings.
    role: ``anchor`` or ``open``.
    context: name of the anchor format or of the framing.
    family: family of the framing; framings of one family never stand on both sides of the OOD split.
    domain: ``safety``, ``moral``, ``math``, ``playground`` or a user's own.
    split: ``train``, ``id`` or ``ood``.
    extras: anything else, JSON-encoded (``"{}"`` if nothing), so that all domains share one schema.
    """

    index: int
    intent_id: str
    role: Role
    context: str
    family: str
    domain: str
    split: Split
    extras: str


class Row(TypedDict):
    """One row of a data file."""

    data_source: str
    prompt: list[Message]
    ability: str
    reward_model: RewardModelField
    extra_info: ExtraInfo


SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("index", pa.int64()),
                    ("intent_id", pa.string()),
                    ("role", pa.string()),
                    ("context", pa.string()),
                    ("family", pa.string()),
                    ("domain", pa.string()),
                    ("split", pa.string()),
                    ("extras", pa.string()),
                ]
            ),
        ),
    ]
)


def make_row(
    *,
    prompt: str | Sequence[Message],
    ground_truth: str,
    intent_id: str,
    role: Role,
    context: str,
    domain: str,
    split: Split,
    index: int,
    family: str = "",
    extras: str = "{}",
) -> Row:
    """Build a row; a plain string becomes one user message."""
    messages = [Message(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt)
    return Row(
        data_source=f"{domain}/{split}",
        prompt=messages,
        ability=domain,
        reward_model=RewardModelField(style="rule" if role == "anchor" else "model", ground_truth=ground_truth),
        extra_info=ExtraInfo(
            index=index,
            intent_id=intent_id,
            role=role,
            context=context,
            family=family or context,
            domain=domain,
            split=split,
            extras=extras,
        ),
    )


def write_rows(path: str | os.PathLike[str], rows: Iterable[Row]) -> Path:
    """Write rows to a parquet file: to a temporary name first, then renamed, so no half-written file is left.

    ``rows`` may be a generator: a row group at a time is in memory.

    Raises:
        DataError: there is no row.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    iterator = iter(rows)
    n = 0
    try:
        with pq.ParquetWriter(temporary, SCHEMA) as writer:
            while chunk := list(islice(iterator, ROWS_A_GROUP)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=SCHEMA))
                n += len(chunk)
        if n == 0:
            raise DataError(f"{path}: no rows to write")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def open_table(path: str | os.PathLike[str]) -> pq.ParquetFile:
    """Open a data file and check its columns.

    Raises:
        DataError: the file is missing, is not parquet, or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Build it with `verl-air data ...` or correct data.train_files.")
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a parquet file ({error})") from error
    present = file.schema_arrow.names
    missing = [name for name in SCHEMA.names if name not in present]
    if missing:
        raise DataError(f"{path}: missing column(s) {', '.join(missing)}; the file has {', '.join(present)}")
    return file


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Yield the rows of a data file, one record batch in memory at a time.

    Raises:
        DataError: see :func:`open_table`.
    """
    for batch in open_table(path).iter_batches(columns=SCHEMA.names):
        yield from batch.to_pylist()


def read_extra_columns(path: str | os.PathLike[str], fields: Sequence[str]) -> pa.Table:
    """Read only some fields of ``extra_info``, as an arrow table with one column each; the prompts stay on disk.

    Raises:
        DataError: see :func:`open_table`; or a field is missing.
    """
    file = open_table(path)
    present = [child.name for child in file.schema_arrow.field("extra_info").type]
    missing = [name for name in fields if name not in present]
    if missing:
        raise DataError(f"{path}: extra_info lacks {', '.join(missing)}; it has {', '.join(present)}")
    flat = file.read(columns=[f"extra_info.{name}" for name in fields]).flatten()
    return pa.table({name: flat[f"extra_info.{name}"] for name in fields})


def read_extra_info(path: str | os.PathLike[str], fields: Sequence[str]) -> dict[str, list[Any]]:
    """Read only some fields of ``extra_info``, as lists; see :func:`read_extra_columns`."""
    return read_extra_columns(path, fields).to_pydict()
