"""What a run leaves in its folder: its record (``config.yaml``, ``run.json``), and metrics that survive a resume.

verl's file logger opens ``metrics.jsonl`` anew, so a resumed run would lose what it had measured before. The file is
set aside before the logger opens it (``metrics.1.jsonl``, ``metrics.2.jsonl``, ...). Once training begins, its lines of
earlier steps are written back in front. A file all of whose lines are back is removed; one that also holds steps that
are now done again, or that belongs to a run not resumed, stays where it was set aside. Nothing is lost whenever the run
dies: until the lines are back, the file stays aside, and the next start reads it again.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_air.files import write_atomically

PACKAGES = ("verl-air", "verl", "torch", "vllm", "transformers", "ray", "TransferQueue", "tensordict", "megatron-core")
COMMAND_VARIABLE = "VERL_AIR_COMMAND"
"""The trainer runs in a Ray worker, whose own command line says nothing; the driver's comes in the environment."""
PATH_VARIABLE = "VERL_FILE_LOGGER_PATH"
"""verl's own (``verl.utils.tracking.FileLogger``)."""


def remember_command() -> None:
    """Called in the driver, before Ray starts its workers."""
    os.environ[COMMAND_VARIABLE] = shlex.join([sys.executable, *sys.argv])


def write_run_record(config: DictConfig, folder: str | Path) -> None:
    """Write the resolved recipe, the command, versions and the commit into a folder, which is made if need be."""
    write_atomically(Path(folder) / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    record = {
        "command": os.environ.get(COMMAND_VARIABLE),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "git": _git_state(),
    }
    write_atomically(Path(folder) / "run.json", json.dumps(record, indent=2) + "\n")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_state() -> dict[str, str | bool] | None:
    """Commit of the working folder and whether it has changes; None outside a repository or without git."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "--untracked=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


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
    name = re.compile(rf"{re.escape(path.stem)}\.(\d+){re.escape(path.suffix)}")
    numbered = {int(match[1]): file for file in path.parent.glob("*") if (match := name.fullmatch(file.name))}
    if path.is_file() and path.stat().st_size:
        number = max(numbered, default=0) + 1
        numbered[number] = path.rename(path.with_name(f"{path.stem}.{number}{path.suffix}"))
    return [numbered[number] for number in sorted(numbered)]


def put_metrics_back(aside: list[Path], logger: Any, *, before_step: int) -> None:
    """Write earlier lines in front of what the logger has written since it opened its file.

    Args:
        aside: from :func:`set_metrics_aside`.
        logger: verl's ``FileLogger``; None if it is off.
        before_step: the first step of training from now on. 1 is a run from the start, which takes nothing back.
    """
    if logger is None or before_step <= 1:
        return
    lines = {file: file.read_bytes().splitlines(keepends=True) for file in aside}
    kept = {step: line for own in lines.values() for line in own if (step := _step(line)) is not None}
    earlier = [kept[step] for step in sorted(kept) if step < before_step]
    written = Path(logger.filepath).read_bytes()
    logger.fp.seek(0)
    logger.fp.write(b"".join(earlier) + written)
    for file, own in lines.items():
        if set(own) <= set(earlier):
            file.unlink()


def _step(line: bytes) -> int | None:
    """None for a line that was cut off: it stays in the file set aside."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if line.endswith(b"\n") and isinstance(step, int) else None
