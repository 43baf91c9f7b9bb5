"""Everything the playground needs, in one folder.

::

    DIR/train.parquet  id.parquet  ood.parquet    data, see :mod:`.dataset`
    DIR/model/                                    the warm-started policy and its tokenizer, in Hugging Face format
    DIR/manifest.json                             settings, versions, sizes, measured starting accuracies

The folder is built beside its final place and renamed when it is whole. A folder with the same settings is kept.
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

from verl_air.errors import DataError
from verl_air.playground.dataset import write_dataset
from verl_air.playground.judging import JUDGE_TEMPLATE, NEGATIVE_WORD, POSITIVE_WORD
from verl_air.playground.measure import measure, measure_judge
from verl_air.playground.model import build_model
from verl_air.playground.tokenizer import build_tokenizer
from verl_air.playground.warm_start import WarmStartConfig, warm_start
from verl_air.playground.world import split_intents

MANIFEST = "manifest.json"
MODEL = "model"
_OWN_NAMES = {MANIFEST, MODEL, "train.parquet", "id.parquet", "ood.parquet"}
# Modules that only use a finished folder.
_NOT_OF_THE_FOLDER = {"__init__.py", "__main__.py", "quickstart.py", "rewards.py"}


@dataclass(frozen=True, kw_only=True)
class PlaygroundConfig:
    """What a playground is made from. train, held_out: numbers of intents. hidden: width of the model."""

    seed: int = 0
    train: int = 120
    held_out: int = 48
    hidden: int = 64
    layers: int = 2
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)

    def settings(self) -> dict[str, Any]:
        """The settings as JSON values, with a fingerprint of the code behind the folder: if it changes, so may all."""
        sources = sorted(path for path in Path(__file__).parent.glob("*.py") if path.name not in _NOT_OF_THE_FOLDER)
        code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
        return {**asdict(self), "code": code}


def build_playground(
    out: str | os.PathLike[str],
    config: PlaygroundConfig | None = None,
    *,
    threads: int = 1,
    progress: TextIO | None = sys.stderr,
) -> dict[str, Any]:
    """Build the folder, or keep it if it was built from the same settings and code; returns its manifest.

    Args:
        out: the folder to make.
        config: what to make it from.
        threads: for torch, while it trains. Another number gives slightly different weights. More than one gains
            little on so small a model, and is many times slower when something else keeps a core busy.
        progress: where to report, or None.

    Raises:
        DataError: ``out`` holds something that is not a playground.
    """
    config = config or PlaygroundConfig()
    out = Path(out).absolute()
    settings = config.settings()
    out.parent.mkdir(parents=True, exist_ok=True)
    with _only_builder_in(out.parent):
        manifest = _read_manifest(out)
        if manifest is not None and manifest["settings"] == settings:
            return manifest
        partial = _fresh(out.with_name(f".{out.name}.partial"))
        try:
            with _torch_threads(threads):
                manifest = _build(partial, config, settings, progress)
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            _replace(out, partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _build(folder: Path, config: PlaygroundConfig, settings: dict[str, Any], progress: TextIO | None) -> dict[str, Any]:
    started = time.monotonic()
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=config.seed, hidden=config.hidden, layers=config.layers)
    rows = write_dataset(folder, config.seed, train=config.train, held_out=config.held_out)
    loss = warm_start(model, tokenizer, seed=config.seed, config=config.warm_start, progress=progress)
    held_out = split_intents(config.seed, train=config.train, held_out=config.held_out).held_out
    measured = {
        **measure(model, tokenizer, held_out, seed=config.seed),
        **measure_judge(model, tokenizer, seed=config.seed),
    }
    model.save_pretrained(folder / MODEL)
    tokenizer.save_pretrained(folder / MODEL)
    return {
        "settings": settings,
        "measured": measured,
        "judge": {"template": JUDGE_TEMPLATE, "positive": POSITIVE_WORD, "negative": NEGATIVE_WORD},
        "sizes": {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), "rows": rows},
        "warm_start_loss": round(loss, 4),
        "seconds": round(time.monotonic() - started, 1),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "transformers", "tokenizers", "pyarrow")},
        },
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


def _replace(out: Path, partial: Path) -> None:
    """Put the finished folder in its place; an older one stands aside until the new one is there."""
    if out.exists():
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        partial.rename(out)
        shutil.rmtree(old)
    else:
        partial.rename(out)


def _fresh(folder: Path) -> Path:
    """An empty folder; what a killed build left there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


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
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
