"""Lines of JSON that a run wrote, and may not have finished writing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_air.errors import DataError


@dataclass
class JsonLines:
    """A JSONL file, read line by line when iterated: yields (where, row), ``where`` for messages.

    broken: numbers of the lines that hold no JSON object, filled by iterating. A run that dies leaves its last one so.
    """

    path: Path
    broken: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        self.broken.clear()
        with self.path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if isinstance(row, dict):
                    yield f"{self.path}, line {number}", row
                else:
                    self.broken.append(number)

    def require_whole(self) -> None:
        """To be called after iterating.

        Raises:
            DataError: a line held no JSON object.
        """
        if self.broken:
            raise DataError(
                f"{self.path}, line {self.broken[0]}: not a JSON object. "
                "If the run died while writing, `verl-air report` reads what is whole; else delete that line."
            )


def open_jsonl(path: str | os.PathLike[str]) -> JsonLines:
    """Check that the file is there.

    Raises:
        DataError: it is not.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return JsonLines(path)
