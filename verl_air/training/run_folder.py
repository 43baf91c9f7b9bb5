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
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from verl_air.files import write_atomically
from verl_air.training.redaction import COMMAND_VARIABLE, PATH_VARIABLE, hide

PACKAGES = ("verl-air", "verl", "torch", "vllm", "transformers", "ray", "TransferQueue", "tensordict", "megatron-core")


def run_folder(config: DictConfig) -> Path:
    """The folder that a run is named by: ``run_dir``, or in a recipe without one ``trainer.default_local_dir``."""
    return Path(str(config.get("run_dir") or config.trainer.default_local_dir))


def write_run_record(config: DictConfig, folder: str | Path) -> None:
    """Write the resolved recipe, the command, versions and the commit into a folder, which is made if need be.

    Values from the environment are stored as references (:mod:`verl_air.training.redaction`).
    """
    recipe = hide(OmegaConf.to_container(config, resolve=True))
    write_atomically(Path(folder) / "config.yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
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


def set_metrics_aside(config: DictConfig) -> list[Path]:
    """Give verl's file logger its path, and rename the metrics file that an earlier start left there.

    Args:
        config: the recipe. ``VERL_FILE_LOGGER_PATH`` is used if it is set; the default is ``metrics.jsonl`` in
            :func:`run_folder`.

    Returns:
        All files set aside by this and earlier starts, oldest first; none if the file logger is off.
    """
    if "file" not in config.trainer.logger:
        return []
    path = Path(os.environ.setdefault(PATH_VARIABLE, str(run_folder(config) / "metrics.jsonl")))
    path.parent.mkdir(parents=True, exist_ok=True)
    name = re.compile(rf"{re.escape(path.stem)}\.(\d+){re.escape(path.suffix)}")
    numbered = {int(match[1]): file for file in path.parent.glob("*") if (match := name.fullmatch(file.name))}
    if path.is_file() and path.stat().st_size:
        number = max(numbered, default=0) + 1
        numbered[number] = path.rename(path.with_name(f"{path.stem}.{number}{path.suffix}"))
    return [numbered[number] for number in sorted(numbered)]


def put_metrics_back(aside: list[Path], logger: Any, *, before_step: int) -> None:
    """Write what was measured earlier in front of what the logger has written since it opened its file.

    Each step becomes one line: a resumed run validates at its checkpoint's step first, which already has one.

    Args:
        aside: from :func:`set_metrics_aside`.
        logger: verl's ``FileLogger``; None if it is off.
        before_step: the first step of training from now on. 1 is a run from the start, which takes nothing back.
    """
    if logger is None or before_step <= 1:
        return
    lines = {file: [_entry(line) for line in file.read_bytes().splitlines(keepends=True)] for file in aside}
    entries = [entry for own in lines.values() for entry in own if entry is not None and entry[0] < before_step]
    entries += filter(None, map(_entry, Path(logger.filepath).read_bytes().splitlines(keepends=True)))
    steps: dict[int, dict[str, Any]] = {}
    for step, data in entries:
        steps.setdefault(step, {}).update(data)
    whole = [json.dumps({"step": step, "data": steps[step]}, separators=(",", ":")) for step in sorted(steps)]
    logger.fp.close()
    write_atomically(logger.filepath, "\n".join([*whole, ""]))
    logger.fp = Path(logger.filepath).open("ab", buffering=0)  # noqa: SIM115  verl closes it
    for file, own in lines.items():
        if all(entry is not None and entry[1].items() <= steps.get(entry[0], {}).items() for entry in own):
            file.unlink()


def _entry(line: bytes) -> tuple[int, dict[str, Any]] | None:
    """(step, metrics); None for a line that was cut off: it stays in the file set aside."""
    try:
        entry = json.loads(line)
        step, data = entry["step"], entry["data"]
    except (ValueError, KeyError, TypeError):
        return None
    return (step, data) if line.endswith(b"\n") and isinstance(step, int) and isinstance(data, dict) else None
