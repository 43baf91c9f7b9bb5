"""Everything the playground needs, in one folder: ``python -m verl_air.playground --out DIR``.

::

    DIR/train.parquet  id.parquet  ood.parquet    data, see :mod:`.dataset`
    DIR/model/                                    the warm-started policy and its tokenizer, in Hugging Face format
    DIR/manifest.json                             settings, versions, sizes, measured starting accuracies

The folder is built next to its final place and renamed when it is complete. A folder with the same settings is kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch

from verl_air.errors import DataError
from verl_air.playground.dataset import write_dataset
from verl_air.playground.framings import Setting
from verl_air.playground.language import JUDGE_TEMPLATE, NEGATIVE_WORD, POSITIVE_WORD, build_tokenizer
from verl_air.playground.measure import measure, measure_judge
from verl_air.playground.model import WarmStartConfig, build_model, warm_start
from verl_air.playground.world import split_intents

MANIFEST = "manifest.json"
MODEL = "model"
_OWN_NAMES = {MANIFEST, MODEL, "train.parquet", "id.parquet", "ood.parquet"}
_USERS = {"__init__.py", "__main__.py", "quickstart.py"}  # modules that only use a finished folder


@dataclass(frozen=True, kw_only=True)
class PlaygroundConfig:
    """What a playground is made from. setting: see :mod:`.framings`. train, held_out: numbers of intents."""

    seed: int = 0
    setting: Setting = "plain"
    train: int = 120
    held_out: int = 48
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)

    def settings(self) -> dict[str, Any]:
        """The settings as JSON values, with a fingerprint of the code behind the folder: if it changes, so may all."""
        sources = sorted(path for path in Path(__file__).parent.glob("*.py") if path.name not in _USERS)
        code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
        return {**asdict(self), "code": code}


def build_playground(
    out: str | os.PathLike[str], config: PlaygroundConfig | None = None, *, progress: TextIO | None = sys.stderr
) -> dict[str, Any]:
    """Build the folder, or keep it if it was built from the same settings and code; returns its manifest.

    Raises:
        DataError: ``out`` holds something that is not a playground.
    """
    config = config or PlaygroundConfig()
    out = Path(out).absolute()
    partial = out.with_name(f".{out.name}.partial")
    settings = config.settings()
    out.parent.mkdir(parents=True, exist_ok=True)
    with _only_builder_in(out.parent):
        manifest = _read_manifest(out)
        if manifest is not None and manifest["settings"] == settings:
            return manifest
        shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
        partial.mkdir()
        try:
            with _one_torch_thread():
                manifest = _build(partial, config, settings, progress)
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            shutil.rmtree(out, ignore_errors=True)
            partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _build(folder: Path, config: PlaygroundConfig, settings: dict[str, Any], progress: TextIO | None) -> dict[str, Any]:
    started, seed, setting = time.monotonic(), config.seed, config.setting
    tokenizer = build_tokenizer(setting)
    model = build_model(tokenizer, seed=seed)
    rows = write_dataset(folder, seed, setting=setting, train=config.train, held_out=config.held_out)
    loss = warm_start(model, tokenizer, seed=seed, setting=setting, config=config.warm_start, progress=progress)
    held_out = split_intents(seed, train=config.train, held_out=config.held_out).held_out
    measured = measure(model, tokenizer, held_out, seed=seed, setting=setting)
    measured |= measure_judge(model, tokenizer, seed=seed, setting=setting)
    model.save_pretrained(folder / MODEL)
    tokenizer.save_pretrained(folder / MODEL)
    packages = ("torch", "transformers", "tokenizers", "pyarrow")
    return {
        "settings": settings,
        "measured": measured,
        "judge": {"template": JUDGE_TEMPLATE, "positive": POSITIVE_WORD, "negative": NEGATIVE_WORD},
        "sizes": {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), "rows": rows},
        "warm_start_loss": round(loss, 4),
        "seconds": round(time.monotonic() - started, 1),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in packages}},
    }


def _read_manifest(out: Path) -> dict[str, Any] | None:
    """The manifest of a finished playground; None if there is nothing to keep.

    Raises:
        DataError: there is something else in the folder, which must not be overwritten.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; name a folder with --out")
    present = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if foreign := sorted(present - _OWN_NAMES):
        raise DataError(f"{out}: holds {foreign[0]!r}, which no playground has; name another folder, or empty this one")
    if present != _OWN_NAMES:
        return None
    try:
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        return manifest if "settings" in manifest else None
    except ValueError:
        return None


@contextmanager
def _only_builder_in(folder: Path) -> Iterator[None]:
    """Wait for other builders in this folder. The lock is on the folder itself: it leaves no file and dies with us."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Another number gives other weights, gains little on so small a model, and is slow on a machine that is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
