"""A tiny model, and worlds of ranks that live as long as the test session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines.definition import Definition
from tests.engines.ranks import Ranks
from tests.engines.tiny_model import save_tiny_model


@pytest.fixture(scope="session")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Definition:
    folder: Path = tmp_path_factory.mktemp("tiny_model")
    save_tiny_model(folder)
    return Definition(folder)


@pytest.fixture(scope="session")
def ranks() -> Iterator[Callable[[int], Ranks]]:
    """One world of each size, started when first asked for."""
    worlds: dict[int, Ranks] = {}
    yield lambda size: worlds.setdefault(size, Ranks(size))
    for world in worlds.values():
        world.close()
