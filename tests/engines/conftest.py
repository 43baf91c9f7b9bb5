"""A tiny model, worlds of ranks that live as long as the test session, and one step of training in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.engines.batch import Batch, random_batch
from tests.engines.definition import Definition
from tests.engines.fsdp import Fsdp2
from tests.engines.ranks import Ranks
from tests.engines.tiny_model import save_tiny_model
from tests.engines.training import Backend, Job, Outcome, train


@pytest.fixture(scope="session")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Definition:
    folder = tmp_path_factory.mktemp("tiny_model")
    save_tiny_model(folder)
    return Definition(folder)


@pytest.fixture(scope="module")
def batch(definition: Definition) -> Batch:
    return definition.off_policy(random_batch())


Train = Callable[..., list[Outcome]]


def trainer(definition: Definition) -> Iterator[Train]:
    """Train on a batch with verl's worker, in a world started when one of its size is first asked for."""
    started: dict[int, Ranks] = {}

    def run(batch: Batch, backend: Backend | None = None, *, world: int = 1, **settings: Any) -> list[Outcome]:
        ranks = started.setdefault(world, Ranks(world))
        return ranks.run(train, Job(str(definition.path), batch, backend or Fsdp2(), **settings))

    yield run
    for ranks in started.values():
        ranks.close()


train_on = pytest.fixture(scope="session", name="train_on")(trainer)
# The shim patches torch for good, so Megatron has worlds of its own.
train_megatron_on = pytest.fixture(scope="package", name="train_megatron_on")(trainer)
