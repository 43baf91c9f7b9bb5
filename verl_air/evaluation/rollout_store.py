"""A JSONL file of rollouts that loses nothing, however often its making is interrupted, and ends the same.

A response is written to ``OUT.generated.jsonl`` when it is generated, and to ``OUT.jsonl`` when it is scored, each in
the order in which that happens. Once all are scored, the rows are put into the order of the data and the first file is
removed. The settings are stored in a file alongside; a file with other settings is refused, so that one table never
mixes two.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from verl_air.errors import DataError
from verl_air.files import write_atomically

POSITION = "_position"
"""Where a row belongs; in unfinished files only."""

_SYNC_SECONDS = 1.0  # at most so long is a row in the operating system's memory alone


def generated_file(path: str | os.PathLike[str]) -> Path:
    """Where the responses of an unfinished file are."""
    return Path(path).with_suffix(f".generated{Path(path).suffix}")


class RolloutStore:
    """Opens the files; a context manager. Rows may be added from several threads.

    Args:
        path: the file, created if it is not there.
        settings: everything that the rows depend on, as JSON values. ``rewards`` may change while no row is scored.
        total: rows when it is finished.

    Attributes:
        generated: position -> row of what is generated and was not scored when the store was opened.

    Raises:
        DataError: the file has other settings or was written by something else, or another process writes to it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], total: int) -> None:
        self.path, self.total = Path(path), total
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._one = threading.Lock()
        self._synced = 0.0
        self._file: BinaryIO = self.path.open("a+b")
        self._texts: BinaryIO | None = None
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{self.path}: another process is writing to it") from None
            self._check_settings(json.loads(json.dumps(settings)))
            self._places = {position: place for position, place, _ in _recover(self._file)}
            self.generated: dict[int, dict[str, Any]] = {}
            if generated_file(path).is_file():
                rows = {position: row for position, _, row in _recover(self._open_texts())}
                self.generated = {position: row for position, row in rows.items() if position not in self._places}
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> RolloutStore:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._file, self._texts):
            if file is not None:
                file.close()

    def __contains__(self, position: int) -> bool:
        return position in self._places or position in self.generated

    @property
    def rows(self) -> int:
        """How many are scored."""
        return len(self._places)

    def add_generated(self, position: int, row: Mapping[str, Any]) -> None:
        """Store a row that is not scored yet."""
        self._append(self._open_texts(), position, row)

    def __setitem__(self, position: int, row: Mapping[str, Any]) -> None:
        """Store a scored row. A NaN is written as null, as verl does."""
        self._places[position] = self._append(self._file, position, row)

    def finish(self) -> None:
        """Put the rows into order if all are scored; what was generated is then in this file alone."""
        if self.rows < self.total or (self._texts is None and self._is_ordered()):
            return
        self._file.seek(0)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as ordered:
            for _, (start, length) in sorted(self._places.items()):
                self._file.seek(start)
                row = json.loads(self._file.read(length))
                row.pop(POSITION, None)
                ordered.write(_line(row))
            ordered.flush()
            os.fsync(ordered.fileno())
        temporary.replace(self.path)
        generated_file(self.path).unlink(missing_ok=True)

    def _is_ordered(self) -> bool:
        self._file.seek(0)
        return not any(POSITION in json.loads(line) for line in self._file)

    def _open_texts(self) -> BinaryIO:
        if self._texts is None:
            self._texts = generated_file(self.path).open("a+b")
        return self._texts

    def _append(self, file: BinaryIO, position: int, row: Mapping[str, Any]) -> tuple[int, int]:
        """Returns where the line begins, and its length."""
        line = _line({**row, POSITION: position})
        with self._one:
            start = file.seek(0, os.SEEK_END)
            file.write(line)
            file.flush()
            if (now := time.monotonic()) - self._synced > _SYNC_SECONDS:
                self._synced = now
                for each in (self._file, self._texts):
                    if each is not None:
                        os.fsync(each.fileno())
        return start, len(line)

    def _check_settings(self, settings: Any) -> None:
        alongside = self.path.with_name(f"{self.path.name}.settings.json")
        texts = generated_file(self.path)
        scored, generated = self.path.stat().st_size, texts.stat().st_size if texts.is_file() else 0
        if not scored and not generated:  # new, or started by an attempt that failed before its first row
            write_atomically(alongside, json.dumps(settings, indent=2) + "\n")
            return
        if not alongside.is_file():
            raise DataError(f"{self.path}: not written by `verl-air evaluate`; name another file with --out")
        known = json.loads(alongside.read_text(encoding="utf-8"))
        names = [name for name in sorted({*known, *settings}) if known.get(name) != settings.get(name)]
        if names == ["rewards"] and not scored:
            write_atomically(alongside, json.dumps(settings, indent=2) + "\n")
        elif names:
            raise DataError(
                f"{self.path}: was started with another {', '.join(names)} (see {alongside.name}): name another file "
                "with --out, or remove both to start again"
            )


def _recover(file: BinaryIO) -> Iterator[tuple[int, tuple[int, int], dict[str, Any]]]:
    """Position, place and content of every whole row; a last line that was cut off is removed."""
    file.seek(0)
    whole = 0
    for number, line in enumerate(file):
        if not line.endswith(b"\n"):
            break
        row = json.loads(line)
        yield row.pop(POSITION, number), (whole, len(line)), row
        whole += len(line)
    file.truncate(whole)


def _line(row: Mapping[str, Any]) -> bytes:
    return f"{json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False)}\n".encode()


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
