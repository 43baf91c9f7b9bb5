"""verl's file logger opens ``metrics.jsonl`` anew, so a resumed run would lose what it had measured before.

The file is set aside before the logger opens it (``metrics.1.jsonl``, ``metrics.2.jsonl``, ...). Once training begins,
its lines of earlier steps are written back in front. A file all of whose lines are back is removed; one that also holds
steps that are now done again, or that belongs to a run not resumed, stays where it was set aside. Nothing is lost
whenever the run dies: until the lines are back, the file stands aside, and the next start reads it again.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

PATH_VARIABLE = "VERL_FILE_LOGGER_PATH"
"""verl's own (``verl.utils.tracking.FileLogger``)."""


def set_metrics_aside(trainer: Any) -> list[Path]:
    """Rename the metrics file of an earlier start, if the file logger is on and there is one.

    Args:
        trainer: the recipe's ``trainer`` section.

    Returns:
        All files set aside by this and earlier starts, oldest first.
    """
    where = os.environ.get(PATH_VARIABLE)
    if where is None or "file" not in trainer.logger:
        return []
    path = Path(where)
    aside = _set_aside_before(path)
    if path.is_file() and path.stat().st_size:
        number = max((_number(file) for file in aside), default=0) + 1
        target = path.with_name(f"{path.stem}.{number}{path.suffix}")
        path.rename(target)
        aside.append(target)
    return aside


def put_metrics_back(aside: list[Path], logger: Any, *, before_step: int) -> None:
    """Write earlier lines in front of what the logger has written since it opened its file.

    Args:
        aside: from :func:`set_metrics_aside`.
        logger: verl's ``FileLogger``; None if it is off.
        before_step: the first step of training from now on. 1 is a run from the start, which takes nothing back.
    """
    if logger is None or before_step <= 1:
        return
    own = Path(logger.filepath).read_bytes().splitlines(keepends=True)
    kept: dict[int, bytes] = {}
    for file in aside:
        lines = file.read_bytes().splitlines(keepends=True)
        kept.update({step: line for line in lines if (step := _step(line)) is not None and step < before_step})
    earlier = [kept[step] for step in sorted(kept)]
    logger.fp.seek(0)
    logger.fp.write(b"".join(earlier + own))
    for file in aside:
        if all(line in earlier for line in file.read_bytes().splitlines(keepends=True)):
            file.unlink()


def _step(line: bytes) -> int | None:
    """None for a line that was cut off: it stays in the file set aside."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if line.endswith(b"\n") and isinstance(step, int) else None


def _set_aside_before(path: Path) -> list[Path]:
    pattern = re.compile(rf"{re.escape(path.stem)}\.\d+{re.escape(path.suffix)}")
    found = [file for file in path.parent.glob(f"{path.stem}.*{path.suffix}") if pattern.fullmatch(file.name)]
    return sorted(found, key=_number)


def _number(file: Path) -> int:
    return int(file.stem.rpartition(".")[2])
