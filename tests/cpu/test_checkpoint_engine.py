"""Weights over gloo, between a real sender and real receivers, each in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

pytest.importorskip("verl.checkpoint_engine.base")

from verl_air.cpu.checkpoint_engine import GlooCheckpointEngine

Weights = list[tuple[str, torch.Tensor]]


def transfer(weights: Weights, *, actors: int = 1, rollouts: int = 1, bucket: int = 64) -> list[Weights]:
    """What each rollout rank received."""
    engines = [GlooCheckpointEngine(bucket, is_master=rank == 0) for rank in range(actors)]
    receivers = [GlooCheckpointEngine(bucket) for _ in range(rollouts)]
    metadata = [engine.prepare() for engine in (*engines, *receivers)]
    for_actors, for_rollouts = GlooCheckpointEngine.build_topology(actors, rollouts, metadata)

    def act(engine: GlooCheckpointEngine, kwargs: dict[str, list], rank: int, source: Iterable | None) -> Weights:
        engine.init_process_group(**{key: values[rank] for key, values in kwargs.items()})
        received = asyncio.run(engine.send_weights(source) if source is not None else collect(engine))
        engine.finalize()
        return received or []

    async def collect(engine: GlooCheckpointEngine) -> Weights:
        return [pair async for pair in engine.receive_weights(global_steps=1)]

    with ThreadPoolExecutor(actors + rollouts) as pool:
        sent = [pool.submit(act, e, for_actors, rank, iter(weights)) for rank, e in enumerate(engines)]
        received = [pool.submit(act, e, for_rollouts, rank, None) for rank, e in enumerate(receivers)]
        for job in sent:
            job.result(timeout=60)
        return [job.result(timeout=60) for job in received]


def same(left: Weights, right: Weights) -> bool:
    return [name for name, _ in left] == [name for name, _ in right] and all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        for (_, a), (_, b) in zip(left, right, strict=True)
    )


@pytest.mark.parametrize(("actors", "rollouts"), [(1, 1), (2, 1), (1, 2)])
def test_every_rollout_rank_gets_the_weights_of_rank_0(actors: int, rollouts: int) -> None:
    torch.manual_seed(0)
    weights = [("embed", torch.randn(5, 3)), ("norm", torch.randn(3)), ("head", torch.randn(7, 4))]
    for received in transfer(weights, actors=actors, rollouts=rollouts):
        assert same(received, weights)


def test_odd_sizes_mixed_types_scalars_and_views_arrive_whole() -> None:
    torch.manual_seed(0)
    weights = [
        ("bytes", torch.arange(3, dtype=torch.uint8)),  # leaves the next tensor at an odd offset
        ("half", torch.randn(5).to(torch.bfloat16)),
        ("scalar", torch.tensor(2.5)),
        ("transposed", torch.randn(4, 6).T),
        ("large", torch.randn(1000)),
        ("empty", torch.empty(0, 4)),
    ]
    assert same(transfer(weights)[0], weights)
    assert same(transfer(weights, bucket=1 << 20)[0], weights)


def test_the_group_can_be_made_again() -> None:
    weights = [("w", torch.ones(2))]
    assert same(transfer(weights)[0], weights)
    assert same(transfer(weights)[0], weights)
