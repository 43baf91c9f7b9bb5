"""What a run leaves beside its checkpoints so that it explains itself: the resolved config, versions, the commit."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

PACKAGES = ("verl-air", "verl", "torch", "vllm", "transformers", "ray", "TransferQueue", "tensordict", "megatron-core")


COMMAND_VARIABLE = "VERL_AIR_COMMAND"
"""The trainer lives in a Ray worker, whose own command line says nothing; the driver's comes in the environment."""


def remember_command() -> None:
    """Called in the driver, before Ray starts its workers."""
    os.environ[COMMAND_VARIABLE] = shlex.join([sys.executable, *sys.argv])


def write_run_record(config: DictConfig, folder: str | Path) -> None:
    """Write ``config.yaml`` and ``run.json`` into a folder, which is made if need be."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    record = {
        "command": os.environ.get(COMMAND_VARIABLE),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "git": _git_state(),
    }
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n")


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
