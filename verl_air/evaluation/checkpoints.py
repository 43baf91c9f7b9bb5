"""A checkpoint's model: the Hugging Face folder in what verl saved, or merged from its shards, and its fingerprint."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from verl_air.errors import DataError

MERGED = "merged"
"""Folder alongside the shards into which they are merged, once."""

_LAST, _BEST = "latest_checkpointed_iteration.txt", "best_checkpoint.json"
# The best one is kept under a second path; of the first, verl removes the weights and leaves the folder.
_FOLDERS = ("global_step_*", "best/global_step_*")
_STEP = re.compile(r"global_step_(\d+)")


def model_folder(path: str | os.PathLike[str], checkpoint: str = "last") -> Path:
    """The Hugging Face folder of a model.

    Args:
        path: such a folder; a checkpoint of verl's (``global_step_N``, or ``actor`` in it); a folder of checkpoints, or
            a run's folder. Shards are merged by verl's own model merger, into ``actor/merged``, and the result is kept.
        checkpoint: of a run: ``last``, ``best`` (named by ``best_checkpoint.json``), or a step.

    Raises:
        DataError: there is no model or no such checkpoint, or the merger failed.
    """
    path = Path(path)
    run = next((f for f in (path / "checkpoints", path) if any(f.glob("global_step_*")) or (f / _LAST).is_file()), None)
    if run is not None:
        return _in_checkpoint(_checkpoint(run, checkpoint))
    if checkpoint != "last":
        raise DataError(f"{path}: has no checkpoints, so none of them is {checkpoint!r}; name a run's folder")
    return _in_checkpoint(path)


def _checkpoint(run: Path, which: str) -> Path:
    """The folder of a run's checkpoint, ``global_step_N``."""
    if which not in ("best", "last") and not which.isdecimal():
        raise DataError(f"checkpoint {which!r}: give best, last, or a step")
    if which.isdecimal():
        step = int(which)
    else:
        marker = run / (_BEST if which == "best" else _LAST)
        try:
            text = marker.read_text(encoding="utf-8")
            step = int(json.loads(text)["global_step"] if which == "best" else text)
        except FileNotFoundError:
            raise DataError(
                f"{run}: no {marker.name}, so it is not known which checkpoint is the {which} one"
            ) from None
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{marker}: names no global_step ({error})") from error
    folders = {step_of(folder): folder for pattern in _FOLDERS for folder in run.glob(pattern)}
    if step not in folders:
        raise DataError(f"{run}: global_step_{step} is not there; steps with a checkpoint: {sorted(folders)}")
    return folders[step]


def _in_checkpoint(path: Path) -> Path:
    for folder in (path, path / "huggingface"):
        if is_model(folder):
            return folder
    if (path / "actor").is_dir():
        return _in_checkpoint(path / "actor")
    if next(path.glob("model_world_size_*_rank_*.pt"), None) is not None:
        return _merge(path, "fsdp")
    if (path / "dist_ckpt").is_dir():
        return _merge(path, "megatron")
    raise DataError(
        f"{path}: no model. Expected a Hugging Face folder (config.json and weights), a checkpoint of verl's "
        "(global_step_N), or a run's folder with checkpoints (trainer.save_freq)"
    )


def step_of(path: str | os.PathLike[str]) -> int:
    """The training step in a checkpoint's path; 0 if it names none."""
    found = _STEP.findall(str(path))
    return int(found[-1]) if found else 0


def is_model(folder: Path) -> bool:
    """Whether there is a configuration and there are weights (verl leaves the former alone with its shards)."""
    weights = (file for pattern in ("*.safetensors", "pytorch_model*.bin") for file in folder.glob(pattern))
    return (folder / "config.json").is_file() and next(weights, None) is not None


def _merge(actor: Path, backend: str) -> Path:
    target = actor / MERGED
    if is_model(target):
        return target
    partial = actor / f".{MERGED}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", backend]
    command += ["--local_dir", str(actor), "--target_dir", str(partial)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not is_model(partial):
        shutil.rmtree(partial, ignore_errors=True)
        end = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise DataError(f"{actor}: verl's model merger failed (status {done.returncode}):\n{end}")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target
