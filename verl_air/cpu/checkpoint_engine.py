"""Weights from the trainer to rollout engines on their own ranks, over gloo.

verl's ``separate_async`` trainer refuses the in-process ("naive") transfer and offers NCCL, NIXL and others, none of
which runs without an accelerator. This one does: ``actor_rollout_ref.rollout.checkpoint_engine.backend: gloo``. Rank 0
of the actor broadcasts to every rollout rank; other actor ranks take part in gathering each weight, and send nothing.

Hook: ``verl.checkpoint_engine.base.CheckpointEngineRegistry`` (tests/contract/test_cpu_hooks.py).
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch
import torch.distributed as dist
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

TIMEOUT = timedelta(minutes=5)
Bucket = list[tuple[str, torch.Tensor]]


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet: address and port of the sender's store."""

    host: str
    port: int


@CheckpointEngineRegistry.register("gloo")
class GlooCheckpointEngine(CheckpointEngine):
    """Broadcast of whole tensors, several per message, pickled as Ray would.

    Args:
        bucket_size: bytes per message; a larger tensor has a message of its own.
        is_master: whether this is rank 0 of the actor.

    A peer that is gone is an error after ``TIMEOUT``, not a wait without end.
    """

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        self.bucket_size = bucket_size
        self.is_master = is_master
        self._store: dist.TCPStore | None = None
        self._group: Any = None  # a ProcessGroupGloo; torch's stubs leave its collectives out
        self._sends_nothing = False

    def prepare(self) -> Meeting | None:
        """Open a store to meet at; only the sender does."""
        if not self.is_master:
            return None
        host = ray.util.get_node_ip_address().strip("[]")
        self._store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        return Meeting(host, self._store.port)

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[Meeting | None]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Rank 0 is the sender, ranks 1.. the rollout ranks; -1 is an actor rank outside the group."""
        size = 1 + rollout_world_size
        actors: dict[str, list[Any]] = {
            "rank": [0, *[-1] * (actor_wg_world_size - 1)],
            "size": [size] * actor_wg_world_size,
            "meeting": [metadata[0]] * actor_wg_world_size,
        }
        rollouts: dict[str, list[Any]] = {
            "rank": list(range(1, size)),
            "size": [size] * rollout_world_size,
            "meeting": [metadata[0]] * rollout_world_size,
        }
        return actors, rollouts

    def init_process_group(self, rank: int, size: int, meeting: Meeting) -> None:
        """Join the group; returns when all have."""
        self._sends_nothing = rank < 0
        if self._sends_nothing:
            return
        store = self._store or dist.TCPStore(meeting.host, meeting.port, is_master=False, timeout=TIMEOUT)
        self._store = store
        self._group = dist.ProcessGroupGloo(dist.PrefixStore("weights", store), rank, size, TIMEOUT)
        self._group.barrier().wait()

    def finalize(self) -> None:
        """Leave the group. The next transfer makes a new one, so replicas may come and go."""
        self._group = None
        self._store = None

    async def send_weights(self, weights: Iterable[tuple[str, torch.Tensor]], global_steps: int | None = None) -> None:
        """Broadcast all weights. Every actor rank must iterate over them: gathering each one is a collective."""
        if self._sends_nothing:
            for _ in weights:
                pass
            return
        for bucket in _buckets(weights, self.bucket_size):
            await asyncio.to_thread(self._send, bucket)
        await asyncio.to_thread(self._send, [])

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        """The weights as they come, in the sender's order and dtype."""
        while bucket := await asyncio.to_thread(self._receive):
            for name, weight in bucket:
                yield name, weight

    def _send(self, bucket: Bucket) -> None:
        content = torch.frombuffer(bytearray(pickle.dumps(bucket)), dtype=torch.uint8)
        self._broadcast(torch.tensor([len(content)]))
        self._broadcast(content)

    def _receive(self) -> Bucket:
        size = int(self._broadcast(torch.zeros(1, dtype=torch.long)))
        bucket: Bucket = pickle.loads(self._broadcast(torch.empty(size, dtype=torch.uint8)).numpy().data)
        return bucket

    def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        assert self._group is not None, "init_process_group comes first"
        self._group.broadcast([tensor], dist.BroadcastOptions()).wait()
        return tensor


def _buckets(weights: Iterable[tuple[str, torch.Tensor]], size: int) -> Iterator[Bucket]:
    """At most ``size`` bytes of tensors at a time, unless one alone is larger."""
    bucket: Bucket = []
    held = 0
    for name, weight in weights:
        tensor = weight.detach().cpu().contiguous().clone()  # of a view, all of what it looks at would be sent
        if bucket and held + tensor.nbytes > size:
            yield bucket
            bucket, held = [], 0
        bucket.append((name, tensor))
        held += tensor.nbytes
    if bucket:
        yield bucket
