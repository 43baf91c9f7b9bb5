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


def worlds() -> Iterator[Callable[[int], Ranks]]:
    """One world of each size, started when first asked for."""
    started: dict[int, Ranks] = {}
    yield lambda size: started.setdefault(size, Ranks(size))
    for world in started.values():
        world.close()


ranks = pytest.fixture(scope="session", name="ranks")(worlds)
# The shim patches torch for good, so Megatron has worlds of its own.
megatron_ranks = pytest.fixture(scope="package", name="megatron_ranks")(worlds)
