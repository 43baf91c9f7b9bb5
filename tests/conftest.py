"""Shared fixtures. Tests run on a machine without a GPU: verl's platform is chosen before anything imports it."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from xdist.scheduler import LoadScopeScheduling

from verl_air.compose import read_recipe

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"

# Folders whose files share what is slow to start: worlds of ranks, one real run at a time.
TOGETHER = ("tests/engines", "tests/runs")


class ByFile(LoadScopeScheduling):
    """With ``-n``, the tests of a file, or of a folder of ``TOGETHER``, run in one process and share its fixtures."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    config.option.loadscopereorder = False  # in the order below
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes what takes longest begins first, or the last process would be left alone with it."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (not item.get_closest_marker("verl_run"), not item.get_closest_marker("slow")))


@pytest.fixture(autouse=True)
def log_levels(caplog: pytest.LogCaptureFixture) -> None:
    """Some module of verl's leaves only errors to the root logger and its handlers; later tests read warnings."""
    logging.root.setLevel(logging.WARNING)
    caplog.handler.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def playground_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The playground's data and tokenizer with an untrained model: all that a recipe's check looks at."""
    from verl_air.playground.dataset import write_dataset
    from verl_air.playground.language import build_tokenizer
    from verl_air.playground.model import build_model

    folder = tmp_path_factory.mktemp("playground")
    write_dataset(folder, 0, train=120, held_out=48)
    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=0).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="session")
def quickstart_recipe(playground_files: Path) -> DictConfig:
    """The quickstart recipe, composed as main_ppo composes it."""
    from hydra import compose, initialize_config_dir

    overrides = ["hydra.searchpath=[pkg://verl.trainer.config]", f"playground={playground_files}"]
    with initialize_config_dir(config_dir=str(RECIPES), version_base=None):
        return compose("quickstart", overrides=overrides)


@pytest.fixture
def compose(quickstart_recipe: DictConfig) -> Callable[..., DictConfig]:
    """The quickstart recipe with overrides, as of ``edited``."""
    return partial(edited, quickstart_recipe)


@cache
def composed(name: str) -> DictConfig:
    """A recipe of the folder, composed once: not to be changed."""
    return read_recipe(name, config_dir=RECIPES)


def edited(config: DictConfig, *overrides: str) -> DictConfig:
    """A copy with overrides: ``key=value`` sets or adds, ``~key`` removes. Composing anew takes ten times as long."""
    config = copy.deepcopy(config)
    OmegaConf.set_struct(config, False)
    for override in overrides:
        key, _, value = override.lstrip("~").partition("=")
        if override.startswith("~"):
            del config[key]
        else:
            OmegaConf.update(config, key, yaml.safe_load(value))
    return config
