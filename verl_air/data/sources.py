"""Reading what a builder starts from: a table, JSON, text or parquet file, or a data set of the Hugging Face hub."""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_air.errors import DataError

_Placed = Iterator[tuple[str, dict[str, Any]]]  # each row with its place in the file
_CHAT_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*["'](?:role|content)["']\s*:""")
_HUB_NAME = re.compile(r"(?P<name>[^:@]+)(:(?P<config>[^:@]+))?(@(?P<split>[^:@]+))?")


@dataclass(frozen=True)
class SourceRow:
    """One row of a source; ``where`` names it in messages."""

    where: str
    values: dict[str, Any]

    def text(self, column: str) -> str:
        """The column as stripped text; a missing value is an empty string, a chat its last user turn with the earlier
        turns above it.

        Raises:
            DataError: the value is a list or a mapping and no chat.
        """
        value = self.values.get(column)
        if isinstance(value, str) and _CHAT_AS_TEXT.match(value):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{self.where}, column {column!r}: a chat as text that is not JSON ({error.msg}). Store it as JSON "
                    "or parquet, or write the request as plain text."
                ) from error
        if isinstance(value, list | dict):
            return _chat_text(value, f"{self.where}, column {column!r}")
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
        """The first of some columns that is present, without regard to case; if none is, the :class:`DataError` lists
        those that are.
        """
        folded = {name.casefold(): [c for c in self.columns if c.casefold() == name.casefold()] for name in candidates}
        found = next(filter(None, folded.values()), [])
        if len(found) > 1:
            raise DataError(
                f"{self.name}: the columns {', '.join(map(repr, found))} differ in case alone. "
                "Rename or remove one of them."
            )
        if not found:
            names = ", ".join(map(repr, candidates))
            raise DataError(f"{self.name}: none of the columns {names}; {self._present}. Name yours with --column.")
        return found[0]

    @property
    def _present(self) -> str:
        return f"the columns are {', '.join(self.columns)}"


def _chat_text(chat: Any, where: str) -> str:
    """Turns of ``{role, content}``: what follows the last user turn is no part of the request."""
    turns = chat if isinstance(chat, list) else [chat]
    if not all(isinstance(turn, dict) and isinstance(turn.get("content"), str) and "role" in turn for turn in turns):
        raise DataError(
            f"{where}: {str(chat)[:80]!r} is neither text nor a chat of {{role, content}} turns. Write the request "
            "as text into a column of its own."
        )
    users = [i for i, turn in enumerate(turns) if turn["role"] == "user"]
    if not users:
        raise DataError(f"{where}: a chat without a user turn has no request")
    *earlier, request = turns[: users[-1] + 1]
    context = "".join(f"{turn['role']}: {turn['content'].strip()}\n" for turn in earlier)
    return f"{context}user: {request['content'].strip()}" if context else request["content"].strip()


def read_source(name: str) -> Source:
    """Read a local file, or a hub data set written as ``owner/name[:config][@split]``.

    Whatever exists as a file is read as one; a folder goes to ``datasets.load_dataset``, as a hub name does.

    Raises:
        DataError: no such file, an unknown suffix, a file that is empty, malformed or in an unknown encoding, a failed
            download.
    """
    path = Path(name)
    if path.is_file() or _suffix(path) in _READERS:
        return _read_file(path)
    return _read_hub(name)


def _suffix(path: Path) -> str:
    """Of what is in a ``.gz`` file, the suffix before it."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def _read_file(path: Path) -> Source:
    reader = _READERS.get(_suffix(path))
    if reader is None:
        raise DataError(f"{path}: unknown kind of file; known: {', '.join(sorted(_READERS))}, each also with .gz")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: not a whole gzip file ({error}). Download it again.") from error
    if not content.strip():
        raise DataError(f"{path}: the file is empty. Download it again.")
    columns, rows = reader(path, content)
    placed = [SourceRow(f"{path.name}, {place}", values) for place, values in rows]
    if not placed:
        raise DataError(f"{path}: the file has no rows. Download it again.")
    return Source(path.name, hashlib.sha256(content).hexdigest(), tuple(columns), placed)


def decode_text(path: Path, content: bytes) -> str:
    """UTF-8 with or without a byte-order mark, or UTF-16 with one; a :class:`DataError` says where it is not."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: not UTF-16, although its byte-order mark says so ({error.reason} at byte {error.start}). "
                "Download it again, or save it as UTF-8."
            ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}). "
            f"Convert it first, for example `iconv -f latin1 -t utf-8 {path.name}`."
        ) from error


def _read_csv(path: Path, content: bytes) -> tuple[list[str], _Placed]:
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))  # of the process: never lowered for other readers
    delimiter = "\t" if _suffix(path) == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(decode_text(path, content), newline=""), delimiter=delimiter, strict=True)
    try:
        columns = list(reader.fieldnames or [])
    except csv.Error as error:
        raise DataError(f"{path}, line 1: malformed CSV ({error})") from error
    if twice := [column for column, n in Counter(columns).items() if n > 1]:
        raise DataError(f"{path}, line 1: the column {twice[0]!r} is there twice. Rename or remove one of them.")

    def rows() -> _Placed:
        begun = 2
        try:
            for values in reader:
                if None in values or None in values.values():
                    raise DataError(
                        f"{path}, line {reader.line_num}: the row does not have {len(columns)} columns. "
                        "A text with a comma or a line break needs quotes around it."
                    )
                yield f"line {reader.line_num}", values
                begun = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}, line {begun}: malformed CSV ({error}). A quote that opens "
                "in this row may never close; double the quotes inside a quoted field."
            ) from error

    return columns, rows()


def _read_json(path: Path, content: bytes) -> tuple[list[str], _Placed]:
    """An array of objects or of texts, or an object of columns."""
    try:
        value = json.loads(decode_text(path, content))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from error
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        lengths = {name: len(column) for name, column in value.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{path}: the columns have different lengths: {lengths}")
        value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise DataError(f"{path}: an array of objects or texts, or an object of columns is expected")
    rows = [{"request": row} if isinstance(row, str) else row for row in value]
    if wrong := [i for i, row in enumerate(rows) if not isinstance(row, dict)]:
        raise DataError(
            f"{path}, element {wrong[0]}: an object or a text is expected, got {type(rows[wrong[0]]).__name__}"
        )
    return list(dict.fromkeys(column for row in rows for column in row)), (
        (f"element {i}", row) for i, row in enumerate(rows)
    )


def _read_text(path: Path, content: bytes) -> tuple[list[str], _Placed]:
    """One request per line; empty lines are passed over."""
    lines = enumerate(decode_text(path, content).splitlines(), start=1)
    return ["request"], ((f"line {number}", {"request": line}) for number, line in lines if line.strip())


def _read_jsonl(path: Path, content: bytes) -> tuple[list[str], _Placed]:
    rows: list[tuple[str, dict[str, Any]]] = []
    for number, line in enumerate(decode_text(path, content).split("\n"), start=1):
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
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".txt": _read_text,
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
