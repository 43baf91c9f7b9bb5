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
from contextlib import ExitStack
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
    """Opens the files; a context manager. Rows may be added from several threads. Scored rows stay in memory, as text.

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
        with ExitStack() as files:
            self._file = files.enter_context(self.path.open("a+b"))
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{self.path}: another process is writing to it") from None
            self._check_settings(json.loads(json.dumps(settings)))
            self._ordered = True
            self._lines: dict[int, bytes] = {}
            for position, row, in_place in _recover(self._file):
                self._ordered &= in_place
                self._lines[position] = _line(row)
            self._texts: BinaryIO | None = None
            self.generated: dict[int, dict[str, Any]] = {}
            if generated_file(path).is_file():
                self._texts = files.enter_context(generated_file(path).open("a+b"))
                rows = {position: row for position, row, _ in _recover(self._texts)}
                self.generated = {position: row for position, row in rows.items() if position not in self._lines}
            self._files = files.pop_all()

    def __enter__(self) -> RolloutStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def __contains__(self, position: int) -> bool:
        return position in self._lines or position in self.generated

    @property
    def rows(self) -> int:
        """How many are scored."""
        return len(self._lines)

    def add_generated(self, position: int, row: Mapping[str, Any]) -> None:
        """Store a row that is not scored yet."""
        if self._texts is None:
            self._texts = self._files.enter_context(generated_file(self.path).open("a+b"))
        self._append(self._texts, position, row)

    def __setitem__(self, position: int, row: Mapping[str, Any]) -> None:
        """Store a scored row. A NaN is written as null, as verl does."""
        self._append(self._file, position, row)
        self._ordered = False
        self._lines[position] = _line(row)

    def finish(self) -> None:
        """Put the rows into order if all are scored; what was generated is then in this file alone."""
        if self.rows < self.total or (self._texts is None and self._ordered):
            return
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as ordered:
            ordered.writelines(line for _, line in sorted(self._lines.items()))
            ordered.flush()
            os.fsync(ordered.fileno())
        temporary.replace(self.path)
        generated_file(self.path).unlink(missing_ok=True)

    def _append(self, file: BinaryIO, position: int, row: Mapping[str, Any]) -> None:
        line = _line({**row, POSITION: position})
        with self._one:
            file.write(line)
            file.flush()
            if (now := time.monotonic()) - self._synced > _SYNC_SECONDS:
                self._synced = now
                for each in (self._file, self._texts):
                    if each is not None:
                        os.fsync(each.fileno())

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


def _recover(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Position and content of every whole row, and whether it is a row of a finished file, which are in order.

    A last line that was cut off is removed.
    """
    file.seek(0)
    whole = 0
    for number, line in enumerate(file):
        if not line.endswith(b"\n"):
            break
        row = json.loads(line)
        position = row.pop(POSITION, None)
        yield (number, row, True) if position is None else (position, row, False)
        whole += len(line)
    file.truncate(whole)


def _line(row: Mapping[str, Any]) -> bytes:
    return f"{json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False)}\n".encode()


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
