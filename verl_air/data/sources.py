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
        for name in candidates:
            found = [column for column in self.columns if column.casefold() == name.casefold()]
            if len(found) > 1:
                raise DataError(
                    f"{self.name}: the columns {', '.join(map(repr, found))} differ in case alone. "
                    "Rename or remove one of them."
                )
            if found:
                return found[0]
        names = ", ".join(map(repr, candidates))
        raise DataError(f"{self.name}: none of the columns {names}; {self._present}. Name yours with --column.")

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
    shown = turns[: users[-1] + 1]
    if len(shown) == 1:
        return str(shown[0]["content"].strip())
    return "\n".join(f"{turn['role']}: {turn['content'].strip()}" for turn in shown)


def read_source(name: str) -> Source:
    """Read a local file, or a hub data set written as ``owner/name[:config][@split]``.

    Whatever exists as a file is read as one; a folder goes to ``datasets.load_dataset``, as a hub name does.

    Raises:
        DataError: no such file, an unknown suffix, a file that is empty, malformed or in an unknown encoding, a failed
            download.
    """
    path = Path(name)
    gzipped = path.suffix.lower() == ".gz"
    kind = Path(path.stem if gzipped else path.name).suffix.lower()
    if kind not in _READERS:
        if path.is_file():
            raise DataError(f"{path}: unknown kind of file; known: {', '.join(sorted(_READERS))}, each also with .gz")
        return _read_hub(name)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    content = path.read_bytes()
    if gzipped:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: not a whole gzip file ({error}). Download it again.") from error
    if not content.strip():
        raise DataError(f"{path}: the file is empty. Download it again.")
    rows = [SourceRow(f"{path.name}, {place}", values) for place, values in _READERS[kind](path, content)]
    if not rows:
        raise DataError(f"{path}: the file has no rows. Download it again.")
    columns = dict.fromkeys(column for row in rows for column in row.values)
    return Source(path.name, hashlib.sha256(content).hexdigest(), tuple(columns), rows)


def _decode(path: Path, content: bytes) -> str:
    """UTF-8 with or without a byte-order mark, or UTF-16 with one; a :class:`DataError` says where it is not."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if wide:
            raise DataError(
                f"{path}: not UTF-16, although its byte-order mark says so ({error.reason} at byte {error.start}). "
                "Download it again, or save it as UTF-8."
            ) from error
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}). "
            f"Convert it first, for example `iconv -f latin1 -t utf-8 {path.name}`."
        ) from error


def _read_csv(path: Path, content: bytes, delimiter: str = ",") -> _Placed:
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))  # of the process: never lowered for other readers
    reader = csv.DictReader(io.StringIO(_decode(path, content), newline=""), delimiter=delimiter, strict=True)
    begun = 1
    try:
        columns = reader.fieldnames or []
        if twice := [column for column, n in Counter(columns).items() if n > 1]:
            raise DataError(f"{path}, line 1: the column {twice[0]!r} is there twice. Rename or remove one of them.")
        begun = reader.line_num + 1
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


def _read_json(path: Path, content: bytes) -> _Placed:
    """An array of objects, of texts or of lists of turns, or an object of columns."""
    try:
        value = json.loads(_decode(path, content))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from error
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        lengths = {name: len(column) for name, column in value.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{path}: the columns have different lengths: {lengths}")
        value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise DataError(f"{path}: an array of objects or texts, or an object of columns is expected")
    for number, entry in enumerate(value):
        if not isinstance(entry, str | list | dict):
            raise DataError(f"{path}, element {number}: an object or a text is expected, got {type(entry).__name__}")
        column = "request" if isinstance(entry, str) else "messages"
        yield f"element {number}", entry if isinstance(entry, dict) else {column: entry}


def _read_jsonl(path: Path, content: bytes) -> _Placed:
    for number, line in _lines(path, content, "\n"):  # a text may hold other line separators
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(values, dict):
            raise DataError(f"{path}, line {number}: a JSON object is expected, got {type(values).__name__}")
        yield f"line {number}", values


def _read_text(path: Path, content: bytes) -> _Placed:
    for number, line in _lines(path, content):
        yield f"line {number}", {"request": line}


def _lines(path: Path, content: bytes, separator: str | None = None) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    text = _decode(path, content)
    lines = text.split(separator) if separator else text.splitlines()
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _read_parquet(path: Path, content: bytes) -> _Placed:
    try:
        table = pq.read_table(pa.BufferReader(content))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a parquet file ({error})") from error
    return ((f"row {row}", values) for row, values in enumerate(table.to_pylist()))


_READERS: dict[str, Callable[[Path, bytes], _Placed]] = {
    ".csv": _read_csv,
    ".tsv": lambda path, content: _read_csv(path, content, "\t"),
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
