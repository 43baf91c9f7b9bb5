"""A playground with a briefly trained model: an untrained one earns the same reward everywhere and learns nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from verl_air.playground.language import build_tokenizer
from verl_air.playground.model import WarmStartConfig, build_model, warm_start

BRIEF = WarmStartConfig(steps=120, anchors=10, opens=14, judgements=8, warm_up=20)


@pytest.fixture(scope="session")
def playground(playground_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The playground's data with a model whose vocabulary is even, as two tensor-parallel ranks need it."""
    folder = tmp_path_factory.mktemp("megatron_playground")
    for file in playground_files.glob("*.parquet"):
        shutil.copy(file, folder)
    tokenizer = build_tokenizer()
    if len(tokenizer) % 2:
        tokenizer.add_tokens("spare")
    model = build_model(tokenizer, seed=0)
    warm_start(model, tokenizer, seed=0, config=BRIEF, progress=None)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder
