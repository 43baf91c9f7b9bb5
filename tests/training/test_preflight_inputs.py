"""What a recipe reads is checked before anything starts: data in stores, and the policy with its tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow.parquet as pq
import pytest

from tests.training.test_preflight import Compose
from verl_air.errors import ConfigError, DataError
from verl_air.training.preflight import check_recipe


@pytest.fixture
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


def in_a_store(playground_files: Path, name: str) -> str:
    """A file of the playground, in fsspec's store in memory, which stands for s3:// and gs://."""
    address = f"memory://data/{name}"
    with fsspec.open(address, "wb") as file:
        file.write((playground_files / name).read_bytes())
    return address


@pytest.mark.usefixtures("_online")
def test_a_file_in_a_store_is_checked_as_verl_reads_it(compose: Compose, playground_files: Path) -> None:
    train, held_out = (in_a_store(playground_files, name) for name in ("train.parquet", "id.parquet"))
    check_recipe(compose(f"data.train_files=[{train}]", f"data.val_files=[{held_out}]"))
    with pytest.raises(ConfigError, match=r"takes 1200 intents .* memory://data/train.parquet hold only 120"):
        check_recipe(compose(f"data.train_files=[{train}]", "data.train_batch_size=4800"))
    assert (
        datasets.load_dataset("parquet", data_files=train)["train"].num_rows
        == pq.read_metadata(playground_files / "train.parquet").num_rows
    )


@pytest.mark.usefixtures("_online")
@pytest.mark.parametrize("address", ["memory://data/none.parquet", "s3://bucket/x.parquet", "gs://bucket/x.parquet"])
def test_a_file_of_a_store_that_cannot_be_read_is_named(compose: Compose, address: str) -> None:
    scheme = address.split(":")[0]
    package = {"s3": "s3fs", "gs": "gcsfs"}.get(scheme)
    if package and find_spec(package):
        pytest.skip(f"{package} is installed, and there is no such store to ask")
    with pytest.raises(DataError, match=rf"{address}: cannot be read \(.*{package or 'none.parquet'}.*credentials"):
        check_recipe(compose(f"data.train_files=[{address}]"))


def test_a_store_is_refused_where_the_hub_is_switched_off(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        DataError, match=r"s3://b/x.parquet: HF_HUB_OFFLINE is set, and verl's `datasets` then reads no"
    ):
        check_recipe(compose("data.train_files=[s3://b/x.parquet]"))


HDFS = """#!/bin/sh
[ "$1 $2" = "dfs -get" ] && cp "$STORE/$(basename "$3")" "$4"
"""


def test_a_file_of_hdfs_is_copied_by_verl_and_one_that_does_not_arrive_is_named(
    compose: Compose, playground_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl.utils import hdfs_io

    command = tmp_path / "hdfs"
    command.write_text(HDFS)
    command.chmod(0o755)
    monkeypatch.setattr(hdfs_io, "_HDFS_BIN_PATH", str(command))
    monkeypatch.setenv("STORE", str(playground_files))
    cache = f"data.cache_dir={tmp_path}/cache"
    check_recipe(compose("data.train_files=[hdfs://host/a/train.parquet]", cache))
    with pytest.raises(DataError, match=r"hdfs://host/a/none.parquet: verl's copy \(`hdfs dfs -get`\) brought no file"):
        check_recipe(compose("data.train_files=[hdfs://host/a/none.parquet]", cache))


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _without_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()


POLICIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no chat template": (_without_template, "its tokenizer has no chat template .*custom_chat_template"),
    "vocabulary larger": (
        lambda model: _edit(model / "config.json", vocab_size=5000),
        "tokens and the model 5000: not",
    ),
    "vocabulary smaller": (
        lambda model: _edit(model / "config.json", vocab_size=20),
        "tokens and the model 20: not its",
    ),
    "short context": (
        lambda model: _edit(model / "config.json", max_position_embeddings=64),
        r"context of 64 tokens is shorter than data.max_prompt_length \+ data.max_response_length = 80",
    ),
    "no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), "config or tokenizer cannot be read"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_that_does_not_fit_is_refused(
    compose: Compose, playground_files: Path, tmp_path: Path, name: str
) -> None:
    spoil, message = POLICIES[name]
    model = shutil.copytree(playground_files / "model", tmp_path / "model")
    spoil(model)
    with pytest.raises(ConfigError, match=message) as fault:
        check_recipe(compose(f"actor_rollout_ref.model.path={model}"))
    assert "\n" not in str(fault.value)


def test_a_padded_vocabulary_is_said_but_taken(compose: Compose, playground_files: Path, tmp_path: Path) -> None:
    model = shutil.copytree(playground_files / "model", tmp_path / "model")
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    _edit(model / "config.json", vocab_size=vocabulary + 3)
    with pytest.warns(UserWarning, match=r"3 of the model's .* are not in its tokenizer"):
        check_recipe(compose(f"actor_rollout_ref.model.path={model}"))


def test_positions_that_are_scaled_are_no_limit(compose: Compose, playground_files: Path, tmp_path: Path) -> None:
    model = shutil.copytree(playground_files / "model", tmp_path / "model")
    scaled = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}
    _edit(model / "config.json", max_position_embeddings=64, rope_parameters=scaled)
    check_recipe(compose(f"actor_rollout_ref.model.path={model}"))
