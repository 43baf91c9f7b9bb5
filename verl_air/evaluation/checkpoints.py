"""A checkpoint's model: the Hugging Face folder in what verl saved, or merged from its shards, and its fingerprint."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from verl_air.errors import DataError

MERGED = "merged"
"""Folder alongside the shards into which they are merged, once."""

_STEP = re.compile(r"global_step_(\d+)")
_SAMPLED = 1 << 16  # bytes read at each of 16 places of a weight file


def model_folder(path: str | os.PathLike[str]) -> Path:
    """The Hugging Face folder of a model.

    Args:
        path: such a folder; a checkpoint of verl's (``global_step_N``, or ``actor`` in it); a folder of checkpoints, or
            a run's folder: its last checkpoint is taken. Shards are merged by verl's own model merger, into
            ``actor/merged``, and the result is kept.

    Raises:
        DataError: there is no model, or the merger failed.
    """
    path = Path(path)
    for folder in (path, path / "huggingface"):
        if is_model(folder):
            return folder
    for folder in (path / "checkpoints", path):
        if (last := _last_checkpoint(folder)) is not None:
            return model_folder(last)
    if (path / "actor").is_dir():
        return model_folder(path / "actor")
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


def fingerprint(model: Path) -> str:
    """A hash of a model's folder that changes with training, without reading all of the weights.

    It is over the size of each file and its contents at 16 places; small files are read whole.
    """
    digest = hashlib.sha256()
    for file in sorted(path for path in model.iterdir() if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            if size <= 16 * _SAMPLED:
                digest.update(content.read())
                continue
            for place in range(16):
                content.seek((size - _SAMPLED) * place // 15)
                digest.update(content.read(_SAMPLED))
    return digest.hexdigest()[:16]


def _last_checkpoint(folder: Path) -> Path | None:
    marker = folder / "latest_checkpointed_iteration.txt"
    if not marker.is_file():
        return None
    checkpoint = folder / f"global_step_{marker.read_text(encoding='utf-8').strip()}"
    if not checkpoint.is_dir():
        raise DataError(f"{marker} names {checkpoint.name}, which is not there")
    return checkpoint


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
