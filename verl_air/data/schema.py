"""The data row: one prompt of one meta-group, as verl reads it from parquet.

Files are written with pyarrow itself: metadata that one release of ``datasets`` writes is not always read by another
(verl's tracker, 2723). The only metadata is the schema's version.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from verl_air.errors import DataError

Role = Literal["anchor", "open"]
Split = Literal["train", "id", "ood"]

ROLES: tuple[Role, ...] = get_args(Role)
SPLITS: tuple[Split, ...] = get_args(Split)

SCHEMA_VERSION = 1
"""Increased when a reader of the previous version could misread a file. Files without a version are read as 1."""

VERSION_KEY = b"verl_air.schema_version"  # in the parquet file's metadata
ROW_GROUP_SIZE = 20_000  # rows that a writer holds in memory at a time


class PromptMessage(TypedDict):
    """One chat message of a prompt."""

    role: str
    content: str


class RewardModelColumn(TypedDict):
    """verl's column ``reward_model``. style: ``rule`` for anchors, ``model`` for open rows."""

    style: str
    ground_truth: str


class ExtraInfo(TypedDict):
    """What the reward functions, the trainer and the evaluation are given about a row.

    index: position of the row in its file.
    intent_id: the meta-group, unique within its domain: everywhere the pair of domain and id is what counts. A training
        intent is in no other split; a held-out one may be in both ID and OOD, in other framings.
    role: ``anchor`` or ``open``.
    context: name of the anchor format or of the framing.
    family: family of the framing; a family of framings is never on both sides of the OOD split.
    domain: ``safety``, ``moral``, ``math``, ``playground`` or a user's own, without a slash.
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


class DataRow(TypedDict):
    """One row of a data file.

    data_source: domain and split, ``"safety/ood"``: the key under which verl reports validation metrics.
    ability: the domain again; verl's own column.
    """

    data_source: str
    prompt: list[PromptMessage]
    ability: str
    reward_model: RewardModelColumn
    extra_info: ExtraInfo


SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "ability": pa.string(),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
        "extra_info": pa.struct(
            {name: pa.int64() if name == "index" else pa.string() for name in ExtraInfo.__annotations__}
        ),
    },
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)


def make_row(
    *,
    prompt: str | Sequence[PromptMessage],
    ground_truth: str,
    intent_id: str,
    role: Role,
    context: str,
    domain: str,
    split: Split,
    index: int,
    family: str = "",
    extras: str | Mapping[str, Any] = "{}",
) -> DataRow:
    """Build a row; a plain string becomes one user message, and ``family`` is the context if not given.

    Raises:
        DataError: the domain has a slash, so that ``<domain>/<id>`` would not be unique.
    """
    if "/" in domain:
        raise DataError(f"domain {domain!r}: a domain must not contain a slash")
    return DataRow(
        data_source=f"{domain}/{split}",
        prompt=[PromptMessage(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt),
        ability=domain,
        reward_model=RewardModelColumn(style="rule" if role == "anchor" else "model", ground_truth=ground_truth),
        extra_info=ExtraInfo(
            index=index,
            intent_id=intent_id,
            role=role,
            context=context,
            family=family or context,
            domain=domain,
            split=split,
            extras=extras if isinstance(extras, str) else json.dumps(extras, ensure_ascii=False, sort_keys=True),
        ),
    )


def write_rows(path: str | os.PathLike[str], rows: Iterable[DataRow]) -> Path:
    """Write rows to a parquet file: to a temporary name first, then renamed, so no half-written file is left.

    ``rows`` may be a generator: a row group at a time is in memory.

    Raises:
        DataError: there is no row.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    iterator, n = iter(rows), 0
    try:
        with pq.ParquetWriter(temporary, SCHEMA) as writer:
            while chunk := list(islice(iterator, ROW_GROUP_SIZE)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=SCHEMA))
                n += len(chunk)
        if n == 0:
            raise DataError(f"{path}: no rows to write")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def open_table(path: str | os.PathLike[str]) -> pq.ParquetFile:
    """Open a data file and check its version and columns.

    A path with a scheme (``s3://``, ``gs://``) is opened by fsspec, as ``datasets`` does when verl reads it.

    Raises:
        DataError: the file is missing, is not parquet, is of a newer version, or lacks a column.
    """
    content: Any = path
    if "://" in str(path):
        import fsspec  # type: ignore[import-untyped]  # comes with verl's `datasets`

        try:
            content = fsspec.open(str(path), "rb").open()
        except Exception as error:  # each store has errors of its own
            raise DataError(
                f"{path}: cannot be read ({type(error).__name__}: {error}). verl reads it with fsspec too: check the "
                "address and the store's credentials, install its package (s3fs, gcsfs), or copy the file."
            ) from error
    elif not Path(path).is_file():
        raise DataError(f"{path}: no such file. Build it with `verl-air data ...` or correct data.train_files.")
    try:
        file = pq.ParquetFile(content)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a parquet file ({error})") from error
    version = (file.schema_arrow.metadata or {}).get(VERSION_KEY, b"1").decode(errors="replace")
    if not version.isdecimal() or int(version) > SCHEMA_VERSION:
        raise DataError(
            f"{path}: data schema version {version}, and this verl-air reads versions up to {SCHEMA_VERSION}. "
            "Upgrade verl-air, or build the file again with `verl-air data ...`."
        )
    present = file.schema_arrow.names
    if missing := [name for name in SCHEMA.names if name not in present]:
        raise DataError(f"{path}: missing column(s) {', '.join(missing)}; the file has {', '.join(present)}")
    return file


def read_rows(path: str | os.PathLike[str]) -> Iterator[DataRow]:
    """Yield the rows of a data file, one record batch in memory at a time; see :func:`open_table` for errors."""
    for batch in open_table(path).iter_batches(columns=SCHEMA.names):
        yield from batch.to_pylist()


def read_extra_columns(path: str | os.PathLike[str], fields: Sequence[str]) -> pa.Table:
    """Read only some fields of ``extra_info``, one column each; a missing one is a :class:`DataError`."""
    file = open_table(path)
    present = [child.name for child in file.schema_arrow.field("extra_info").type]
    if missing := [name for name in fields if name not in present]:
        raise DataError(f"{path}: extra_info lacks {', '.join(missing)}; it has {', '.join(present)}")
    flat = file.read(columns=[f"extra_info.{name}" for name in fields]).flatten()
    return pa.table({name: flat[f"extra_info.{name}"] for name in fields})


def read_extra_info(path: str | os.PathLike[str], fields: Sequence[str]) -> dict[str, list[Any]]:
    """Read only some fields of ``extra_info``, as lists; see :func:`read_extra_columns`."""
    return read_extra_columns(path, fields).to_pydict()
