"""Weights from the trainer to rollout engines on their own ranks, over gloo.

verl's ``separate_async`` trainer refuses the in-process ("naive") transfer and offers NCCL, NIXL and others, none of
which runs without an accelerator. This one does: ``actor_rollout_ref.rollout.checkpoint_engine.backend: gloo``. Rank 0
of the actor broadcasts to every rollout rank; other actor ranks take part in gathering each weight, and send nothing.

Hook: ``verl.checkpoint_engine.base.CheckpointEngineRegistry`` (tests/contract/test_cpu_hooks.py).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch
import torch.distributed as dist
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

TIMEOUT = timedelta(minutes=5)
Layout = list[tuple[str, list[int], str]]


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet: address and port of the sender's store."""

    host: str
    port: int


@CheckpointEngineRegistry.register("gloo")
class GlooCheckpointEngine(CheckpointEngine):
    """Broadcast of whole tensors, several per message.

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
        for layout, payload in _buckets(weights, self.bucket_size):
            await asyncio.to_thread(self._send, layout, payload)
        await asyncio.to_thread(self._send, [], torch.empty(0, dtype=torch.uint8))

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        """The weights as they come, in the sender's order and dtype."""
        while True:
            layout, payload = await asyncio.to_thread(self._receive)
            if not layout:
                return
            offset = 0
            for name, shape, dtype in layout:
                end = offset + math.prod(shape) * getattr(torch, dtype).itemsize
                # a copy of its own: a slice of bytes need not start where its dtype may
                yield name, payload[offset:end].clone().view(getattr(torch, dtype)).view(shape)
                offset = end

    def _send(self, layout: Layout, payload: torch.Tensor) -> None:
        header = torch.frombuffer(bytearray(json.dumps(layout).encode()), dtype=torch.uint8)
        for part in (torch.tensor([len(header), len(payload)]), header, payload):
            self._broadcast(part)

    def _receive(self) -> tuple[Layout, torch.Tensor]:
        lengths = self._broadcast(torch.zeros(2, dtype=torch.long)).tolist()
        header, payload = (self._broadcast(torch.empty(length, dtype=torch.uint8)) for length in lengths)
        return json.loads(bytes(header.tolist())), payload

    def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        assert self._group is not None, "init_process_group comes first"
        if len(tensor):
            self._group.broadcast([tensor], dist.BroadcastOptions()).wait()
        return tensor


def _buckets(weights: Iterable[tuple[str, torch.Tensor]], size: int) -> Iterator[tuple[Layout, torch.Tensor]]:
    """Tensors one after the other as bytes, at most ``size`` of them unless one alone is larger."""
    layout: Layout = []
    parts: list[torch.Tensor] = []
    held = 0
    for name, weight in weights:
        tensor = weight.detach().cpu().contiguous()
        if parts and held + tensor.nbytes > size:
            yield layout, torch.cat(parts)
            layout, parts, held = [], [], 0
        layout.append((name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")))
        parts.append(tensor.reshape(-1).view(torch.uint8))
        held += tensor.nbytes
    if parts:
        yield layout, torch.cat(parts)
