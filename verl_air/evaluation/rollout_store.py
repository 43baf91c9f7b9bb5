"""A JSONL file of rollouts that grows in whole rows, in a fixed order, and can be resumed however it was interrupted.

The settings fix the order, so what is done is the number of whole rows in the file. A last line that was cut off is
removed when the file is opened again, and its row is made again. The settings are stored in a file alongside; a file
with other settings is refused, so that one table never mixes two.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from verl_air.errors import DataError
from verl_air.files import write_atomically


class RolloutStore:
    """Opens the file; a context manager.

    Args:
        path: the file, created if it is not there.
        settings: everything that the rows depend on, as JSON values.

    Raises:
        DataError: the file has other settings or was written by something else, or another process writes to it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self.path.open("a+b")
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{self.path}: another process is writing to it") from None
            self._check_settings(json.loads(json.dumps(settings)))
            self.rows = self._recover()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RolloutStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, all of them on disk when this returns. A NaN is written as null, as verl does."""
        lines = [json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False) for row in rows]
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows += len(lines)

    def _check_settings(self, settings: Any) -> None:
        alongside = self.path.with_name(f"{self.path.name}.settings.json")
        if not self.path.stat().st_size:  # new, or started by an attempt that failed before its first row
            write_atomically(alongside, json.dumps(settings, indent=2) + "\n")
            return
        if not alongside.is_file():
            raise DataError(f"{self.path}: not written by `verl-air evaluate`; name another file with --out")
        known = json.loads(alongside.read_text(encoding="utf-8"))
        if names := [name for name in sorted({*known, *settings}) if known.get(name) != settings.get(name)]:
            raise DataError(
                f"{self.path}: was started with another {', '.join(names)} (see {alongside.name}): name another file "
                "with --out, or remove both to start again"
            )

    def _recover(self) -> int:
        """Cut off a last line that is not whole; returns the number of rows."""
        self._file.seek(0)
        whole = rows = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            rows += 1
        self._file.truncate(whole)
        return rows


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
