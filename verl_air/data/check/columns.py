"""The short columns of all files as numbers: what structure and leaks are checked on.

Axis S: rows of all files, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_air.data.check.findings import Finding, Severity
from verl_air.data.schema import SCHEMA, open_table, read_extra_columns
from verl_air.errors import DataError

TEXT_FIELDS = ("intent_id", "role", "context", "family", "domain", "split")
TOP_COLUMNS = ("data_source", "ability")
MISSING = -1


@dataclass(frozen=True)
class Columns:
    """Text columns as codes.

    paths: the files.
    offsets: [files + 1], where each file's rows begin.
    index_S: ``extra_info.index``; negative where it is missing.
    code_S: column -> [S], the number of each row's value in ``values[column]``; ``MISSING`` for null.
    """

    paths: tuple[Path, ...]
    offsets: np.ndarray
    index_S: np.ndarray
    code_S: dict[str, np.ndarray]
    values: dict[str, list[str]]

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def file_S(self) -> np.ndarray:
        """The number of each row's file."""
        return np.repeat(np.arange(len(self.paths)), np.diff(self.offsets))

    def value(self, column: str, row: int) -> str | None:
        """A cell."""
        code = int(self.code_S[column][row])
        return None if code == MISSING else self.values[column][code]

    def finding(self, check: str, row: int, column: str, message: str, severity: Severity = "error") -> Finding:
        """A fault at a row of all files."""
        file = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return Finding(severity, check, str(self.paths[file]), int(row - self.offsets[file]), column, message)


def read_columns(paths: Sequence[Path]) -> Columns:
    """Read the short columns.

    Raises:
        DataError: a file cannot be read, or a column is missing or of another type.
    """
    parts: dict[str, list[pa.ChunkedArray]] = {name: [] for name in (*TOP_COLUMNS, "index", *TEXT_FIELDS)}
    offsets = [0]
    for path in paths:
        _check_types(path)
        top = open_table(path).read(columns=list(TOP_COLUMNS))
        extra = read_extra_columns(path, ("index", *TEXT_FIELDS))
        for name in TOP_COLUMNS:
            parts[name].append(top[name])
        for name in ("index", *TEXT_FIELDS):
            parts[name].append(extra[name])
        offsets.append(offsets[-1] + top.num_rows)
    code_S, values = {}, {}
    for name in (*TOP_COLUMNS, *TEXT_FIELDS):
        code_S[name], values[name] = _encode(parts.pop(name))
    index = pa.chunked_array([chunk for part in parts["index"] for chunk in part.chunks], type=pa.int64())
    return Columns(tuple(paths), np.array(offsets), pc.fill_null(index, -1).to_numpy(), code_S, values)


def _check_types(path: Path) -> None:
    present = open_table(path).schema_arrow
    for wanted in SCHEMA:
        got = present.field(wanted.name).type
        if wanted.name == "extra_info":
            types = {child.name: child.type for child in got} if pa.types.is_struct(got) else {}
            for child in wanted.type:
                if child.name not in types:
                    raise DataError(f"{path}: extra_info lacks {child.name}; it has {', '.join(types) or 'no fields'}")
                if not _alike(types[child.name], child.type):
                    raise DataError(f"{path}: extra_info.{child.name} is {types[child.name]}, not {child.type}")
        elif not _alike(got, wanted.type):
            raise DataError(f"{path}: column {wanted.name} is {got}, not {wanted.type}")


def _alike(got: pa.DataType, wanted: pa.DataType) -> bool:
    """The same but for the width of offsets, the order of struct fields and further ones."""
    if pa.types.is_string(wanted):
        return pa.types.is_string(got) or pa.types.is_large_string(got)
    if pa.types.is_list(wanted):
        return (pa.types.is_list(got) or pa.types.is_large_list(got)) and _alike(got.value_type, wanted.value_type)
    if pa.types.is_struct(wanted):
        if not pa.types.is_struct(got):
            return False
        types = {child.name: child.type for child in got}
        return all(child.name in types and _alike(types[child.name], child.type) for child in wanted)
    return bool(got == wanted)


def _encode(parts: list[pa.ChunkedArray]) -> tuple[np.ndarray, list[str]]:
    chunks = [pc.cast(chunk, pa.string()) for part in parts for chunk in part.chunks]
    encoded = pc.dictionary_encode(pa.chunked_array(chunks, type=pa.string())).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    codes = pc.fill_null(encoded.indices, MISSING).to_numpy(zero_copy_only=False)
    return codes.astype(np.int32), encoded.dictionary.to_pylist()
