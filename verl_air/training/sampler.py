"""Prompts leave the data set in whole meta-groups: m anchors and n open rows of one intent, then the next intent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from verl_air.data.groups import GroupIndex


class MetaGroupSampler(Sampler[int]):
    """Yields row numbers, ``anchors + open_`` consecutive ones per intent; each intent once per epoch.

    The order depends on the seed and the epoch alone, so two runs see the same prompts in the same order. Where an
    intent has more rows than a visit takes, each visit draws anew. State is saved and restored by torchdata's
    ``StatefulDataLoader`` through the iterator, so a resumed run continues exactly where it was.

    Args:
        index: rows by intent.
        anchors: anchors per visit, m.
        open_: open rows per visit, n.
        shuffle: shuffle the intents each epoch; otherwise they come in order of first appearance.
        seed: any integer.
    """

    def __init__(self, index: GroupIndex, *, anchors: int, open_: int, shuffle: bool, seed: int) -> None:
        self.index, self.anchors, self.open = index, anchors, open_
        self.shuffle, self.seed = shuffle, seed
        self.group_size = anchors + open_
        self.next_epoch = 0

    def __len__(self) -> int:
        return len(self.index) * self.group_size

    def __iter__(self) -> Iterator[int]:
        return _MetaGroupIterator(self)

    def intent_order(self, epoch: int) -> np.ndarray:
        """Intent numbers in the order of an epoch: int64 [Z]."""
        if not self.shuffle:
            return np.arange(len(self.index))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.index))

    def visit(self, epoch: int, intent: int) -> list[int]:
        """The rows of one visit: anchors first, then open rows."""
        rng = np.random.default_rng([self.seed, epoch, intent])
        return [*_draw(rng, self.index.anchors(intent), self.anchors), *_draw(rng, self.index.open(intent), self.open)]


def _draw(rng: np.random.Generator, rows: np.ndarray, count: int) -> list[int]:
    if len(rows) > count:
        rows = np.sort(rng.choice(rows, size=count, replace=False))
    return [int(row) for row in rows]


class _MetaGroupIterator(Iterator[int]):
    """One epoch; stateful in the way that torchdata's loader looks for (``state_dict``, ``load_state_dict``)."""

    def __init__(self, sampler: MetaGroupSampler) -> None:
        self._sampler = sampler
        self._start(sampler.next_epoch, yielded=0)

    def _start(self, epoch: int, yielded: int) -> None:
        self._epoch, self._yielded = epoch, yielded
        self._order = self._sampler.intent_order(epoch)
        self._group: list[int] = []
        self._sampler.next_epoch = epoch + 1

    def __next__(self) -> int:
        visit, position = divmod(self._yielded, self._sampler.group_size)
        if visit >= len(self._order):
            raise StopIteration
        if position == 0 or not self._group:
            self._group = self._sampler.visit(self._epoch, int(self._order[visit]))
        self._yielded += 1
        return self._group[position]

    def state_dict(self) -> dict[str, Any]:
        """How far the epoch is."""
        return {"epoch": self._epoch, "yielded": self._yielded}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        self._start(int(state["epoch"]), int(state["yielded"]))
