"""Reading what a builder starts from: CSV, TSV, JSONL and parquet files, or a data set of the Hugging Face hub."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_air.errors import DataError

_Placed = Iterator[tuple[str, dict[str, Any]]]  # each row with its place in the file
_HUB_NAME = re.compile(r"(?P<name>[^:@]+)(:(?P<config>[^:@]+))?(@(?P<split>[^:@]+))?")


@dataclass(frozen=True)
class SourceRow:
    """One row of a source; ``where`` names it in messages."""

    where: str
    values: dict[str, Any]

    def text(self, column: str) -> str:
        """The column as stripped text; a missing value is an empty string."""
        value = self.values.get(column)
        return "" if value is None else str(value).strip()


@dataclass(frozen=True)
class Source:
    """A source, read whole. sha256: of the file's bytes; of the rows as JSON if it came from the hub."""

    name: str
    sha256: str
    columns: tuple[str, ...]
    rows: list[SourceRow] = field(repr=False)

    def require(self, *columns: str) -> None:
        """Check that columns are present; the :class:`DataError` lists those that are."""
        if missing := [column for column in columns if column not in self.columns]:
            raise DataError(f"{self.name}: no column {', '.join(map(repr, missing))}; {self._present}")

    def find_column(self, *candidates: str) -> str:
        """The first of some columns that is present; if none is, the :class:`DataError` lists those that are."""
        found = next((column for column in candidates if column in self.columns), None)
        if found is None:
            names = ", ".join(map(repr, candidates))
            raise DataError(f"{self.name}: none of the columns {names}; {self._present}. Name yours with --column.")
        return found

    @property
    def _present(self) -> str:
        return f"the columns are {', '.join(self.columns)}"


def read_source(name: str) -> Source:
    """Read a local file, or a hub data set written as ``owner/name[:config][@split]``.

    Whatever exists as a file is read as one; a folder goes to ``datasets.load_dataset``, as a hub name does.

    Raises:
        DataError: no such file, an unknown suffix, a file that is empty, not UTF-8 or malformed, a failed download.
    """
    path = Path(name)
    if path.is_file() or path.suffix.lower() in _READERS:
        return _read_file(path)
    return _read_hub(name)


def _read_file(path: Path) -> Source:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown kind of file; known: {', '.join(sorted(_READERS))}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    content = path.read_bytes()
    if not content.strip():
        raise DataError(f"{path}: the file is empty")
    columns, rows = reader(path, content)
    placed = [SourceRow(f"{path.name}, {place}", values) for place, values in rows]
    if not placed:
        raise DataError(f"{path}: the file has no rows")
    return Source(path.name, hashlib.sha256(content).hexdigest(), tuple(columns), placed)


def _decode(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}). "
            f"Convert it first, for example `iconv -f latin1 -t utf-8 {path.name}`."
        ) from error


def _read_csv(path: Path, content: bytes) -> tuple[list[str], _Placed]:
    reader = csv.DictReader(
        io.StringIO(_decode(path, content), newline=""),
        delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
        strict=True,
    )
    columns = list(reader.fieldnames or [])

    def rows() -> _Placed:
        try:
            for values in reader:
                if None in values or None in values.values():
                    raise DataError(f"{path}, line {reader.line_num}: the row does not have {len(columns)} columns")
                yield f"line {reader.line_num}", values
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: malformed CSV ({error})") from error

    return columns, rows()


def _read_jsonl(path: Path, content: bytes) -> tuple[list[str], _Placed]:
    rows: list[tuple[str, dict[str, Any]]] = []
    for number, line in enumerate(_decode(path, content).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(values, dict):
            raise DataError(f"{path}, line {number}: a JSON object is expected, got {type(values).__name__}")
        rows.append((f"line {number}", values))
    return list(dict.fromkeys(column for _, values in rows for column in values)), iter(rows)


def _read_parquet(path: Path, content: bytes) -> tuple[list[str], _Placed]:
    try:
        table = pq.read_table(pa.BufferReader(content))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a parquet file ({error})") from error
    return table.column_names, ((f"row {row}", values) for row, values in enumerate(table.to_pylist()))


_READERS: dict[str, Callable[[Path, bytes], tuple[list[str], _Placed]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _read_hub(name: str) -> Source:
    import datasets

    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name!r} is neither a file nor a hub name `owner/name[:config][@split]`")
    split = match["split"] or "train"
    try:
        rows = datasets.load_dataset(match["name"], match["config"], split=split)
    except Exception as error:  # the library raises many kinds: network, name, configuration
        raise DataError(
            f"{name}: there is no such file, and the hub could not give a data set of that name "
            f"(config {match['config']}, split {split}): {type(error).__name__}: {error}"
        ) from error
    placed = [SourceRow(f"{name}, row {number}", dict(values)) for number, values in enumerate(rows)]
    if not placed:
        raise DataError(f"{name}: the data set has no rows")
    digest = hashlib.sha256()
    for row in placed:
        digest.update(json.dumps(row.values, sort_keys=True, default=str).encode())
    return Source(name, digest.hexdigest(), tuple(rows.column_names), placed)
