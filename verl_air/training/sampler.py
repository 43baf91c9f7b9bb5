"""Prompts leave the data set in whole meta-groups: m anchors and n open rows of one intent, then the next intent."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from verl_air.data.groups import GroupIndex
from verl_air.data.mixing import Mixture
from verl_air.errors import ConfigError, DataError

_ALL = ""
"""The one domain of a sampler without a mixture."""


class MetaGroupSampler(Sampler[int]):
    """Yields row numbers without end, ``anchors + open_`` consecutive ones per intent; each intent once per epoch.

    The order depends on the seed and the epoch alone, so two runs see the same prompts in the same order. Where an
    intent has more rows than a visit takes, each visit draws anew. State is saved and restored by torchdata's
    ``StatefulDataLoader`` through the iterator, so a resumed run continues exactly where it was. Intents named in
    ``set_aside`` are visited no more.

    With a mixture, each domain has epochs and an order of its own, which do not depend on the other domains; whose turn
    it is depends on the weights alone (:class:`_Turns`). ``len`` is the rows of an epoch over all intents.

    Args:
        index: rows by intent.
        anchors: anchors per visit, m.
        open_: open rows per visit, n.
        shuffle: shuffle the intents each epoch; otherwise they come in order of first appearance.
        seed: any integer.
        mixture: shares of domains; None takes the intents as they come.
    """

    def __init__(
        self, index: GroupIndex, *, anchors: int, open_: int, shuffle: bool, seed: int, mixture: Mixture | None = None
    ) -> None:
        self.index, self.anchors, self.open = index, anchors, open_
        self.shuffle, self.seed = shuffle, seed
        self.mixture = mixture or Mixture((_ALL,), (1,), (np.arange(len(index)),))
        self.group_size = anchors + open_
        self.set_aside: set[str] = set()
        self._trained = _Turns(self.mixture)

    def __len__(self) -> int:
        return len(self.index) * self.group_size

    def __iter__(self) -> Iterator[int]:
        return _Visits(self)

    def intent_order(self, domain: int, epoch: int) -> np.ndarray:
        """Intent numbers of a domain in the order of its epoch, which the seed and its name decide: int64 [Z]."""
        members = self.mixture.members[domain]
        key = [self.seed, epoch, *self.mixture.names[domain].encode()]
        return np.random.default_rng(key).permutation(members) if self.shuffle else members

    def visit(self, epoch: int, order: np.ndarray, place: int) -> list[int]:
        """The rows of one visit to the intent at a place of an order [Z]: anchors first, then open rows.

        The next intent takes the place of one that is set aside, so an epoch keeps its length.

        Raises:
            DataError: all intents are set aside.
        """
        from_there = (int(order[(place + k) % len(order)]) for k in range(len(order)))
        intent = next((z for z in from_there if self.index.names[z].as_py() not in self.set_aside), None)
        if intent is None:
            raise DataError(f"a row of every intent failed again and again: {', '.join(sorted(self.set_aside)[:5])}")
        rng = np.random.default_rng([self.seed, epoch, intent])
        return [*_draw(rng, self.index.anchors(intent), self.anchors), *_draw(rng, self.index.open(intent), self.open)]

    def start_from(self, turns: dict[str, Any]) -> None:
        """Where :meth:`epochs_after` counts from: the state of a mixture's turns."""
        self._trained.load_state_dict(turns)

    def epochs_after(self, visits: int) -> dict[str, float]:
        """Count so many further visits as trained on; returns how often each domain's intents have been visited."""
        for _ in range(visits):
            self._trained.take()
        sizes = map(len, self.mixture.members)
        epochs = {n: v / size for n, v, size in zip(self.mixture.names, self._trained.visits_D, sizes, strict=True)}
        return {} if _ALL in epochs else epochs


def _draw(rng: np.random.Generator, rows: np.ndarray, count: int) -> list[int]:
    if len(rows) > count:
        rows = np.sort(rng.choice(rows, size=count, replace=False))
    return [int(row) for row in rows]


class _Turns:
    """Whose turn it is: after t visits each domain has had its share of t, to within one visit.

    The quota method (Balinski and Young 1975): of the domains that one more visit does not take above their share, the
    one with the most weight per visit. Where a step's meta-groups divide by the weights, each step has exact shares.
    """

    def __init__(self, mixture: Mixture) -> None:
        self._names, self._weights, self._total = mixture.names, mixture.weights, sum(mixture.weights)
        self._sizes = [len(members) for members in mixture.members]
        self.visits_D = [0] * len(self._names)
        self._quota_D = [0] * len(self._names)  # visits since the weights were last changed
        self._taken = 0  # their sum

    def take(self) -> int:
        """The domain that is visited next."""
        self._taken += 1
        chosen, most = -1, 0.0
        for d, (n, weight) in enumerate(zip(self._quota_D, self._weights, strict=True)):
            if n * self._total < weight * self._taken and weight / (n + 1) > most:
                chosen, most = d, weight / (n + 1)
        self._quota_D[chosen] += 1
        self.visits_D[chosen] += 1
        return chosen

    def state_dict(self, before: int | None = None) -> dict[str, Any]:
        """Visits of each domain, in all and under these weights. before: the domain whose last visit does not count."""
        visits, quota = (
            {name: n - (d == before) for d, (name, n) in enumerate(zip(self._names, counts, strict=True))}
            for counts in (self.visits_D, self._quota_D)
        )
        return {"visits": visits, "quota": quota, "weights": dict(zip(self._names, self._weights, strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue; other weights than the state's apply from here on."""
        if (visits := state.get("visits")) is None:
            raise ConfigError(
                "the checkpoint's order of prompts is that of verl-air 0.1: resume it with that version, or start anew "
                "with trainer.resume_mode=disable"
            )
        if _ALL in self._names and _ALL not in visits:
            raise ConfigError(
                "the checkpoint was written with air.domain_weights, and the recipe has none: set them again "
                f"({', '.join(visits)}), or start anew with trainer.resume_mode=disable"
            )
        if _ALL in visits and _ALL not in self._names:
            warnings.warn(
                "the checkpoint was written without air.domain_weights: each domain begins a new epoch", stacklevel=2
            )
            self.visits_D = [-(-visits[_ALL] // sum(self._sizes)) * size for size in self._sizes]
            return
        self.visits_D = [int(visits.get(name, 0)) for name in self._names]
        same = state["weights"] == dict(zip(self._names, self._weights, strict=True))
        self._quota_D = [int(state["quota"][name]) if same else 0 for name in self._names]
        self._taken = sum(self._quota_D)


class _Visits(Iterator[int]):
    """Row after row; stateful in the way that torchdata's loader looks for (``state_dict``, ``load_state_dict``)."""

    def __init__(self, sampler: MetaGroupSampler) -> None:
        self._sampler = sampler
        self._restart(_Turns(sampler.mixture).state_dict(), 0)

    def _restart(self, turns: dict[str, Any], position: int) -> None:
        self._turns = _Turns(self._sampler.mixture)
        self._turns.load_state_dict(turns)
        self._position, self._domain = position, 0
        self._group: list[int] = []
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def __next__(self) -> int:
        if self._position == 0 or not self._group:
            domain = self._domain = self._turns.take()
            epoch, place = divmod(self._turns.visits_D[domain] - 1, len(self._sampler.mixture.members[domain]))
            if self._orders.get(domain, (-1,))[0] != epoch:
                self._orders[domain] = epoch, self._sampler.intent_order(domain, epoch)
            self._group = self._sampler.visit(epoch, self._orders[domain][1], place)
        row = self._group[self._position]
        self._position = (self._position + 1) % self._sampler.group_size
        return row

    def state_dict(self) -> dict[str, Any]:
        """The turns before the meta-group that is being handed out, and the position in it."""
        midway = bool(self._position and self._group)
        turns = self._turns.state_dict(before=self._domain if midway else None)
        return {**turns, "position": self._position, "set_aside": sorted(self._sampler.set_aside)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        self._sampler.set_aside.update(state.get("set_aside", ()))
        self._restart(state, int(state.get("position", 0)))
        self._sampler.start_from(state)


def report_left_out(index: GroupIndex, needed: int, max_prompt_length: int) -> None:
    """Warn of the intents that verl's length filter left with too few rows.

    Args:
        index: of the filtered data.
        needed: intents of a step.
        max_prompt_length: ``data.max_prompt_length``, in tokens.

    Raises:
        DataError: the other intents do not fill a step.
    """
    if not index.left_out:
        return
    named = ", ".join(index.left_out[:5]) + (", ..." if len(index.left_out) > 5 else "")
    message = (
        f"data.max_prompt_length={max_prompt_length} leaves {len(index.left_out)} intents with fewer rows "
        f"than a visit takes; they are left out: {named}"
    )
    if len(index) < needed:
        raise DataError(f"{message}. The other {len(index)} are fewer than the {needed} of a step: raise the limit.")
    warnings.warn(message, stacklevel=2)
