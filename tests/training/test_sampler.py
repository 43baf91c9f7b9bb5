"""Whole meta-groups, in an order that the seed decides and a resumed run continues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchdata.stateful_dataloader import StatefulDataLoader

from verl_air.data.groups import GroupIndex, build_group_index
from verl_air.training.sampler import MetaGroupSampler


def index_of(intents: int, anchors: int, opens: int) -> tuple[GroupIndex, list[str], list[str]]:
    """Rows of all intents, interleaved, so that order in the file says nothing."""
    ids, roles = [], []
    for slot in range(anchors + opens):
        for intent in range(intents):
            ids.append(f"intent-{intent}")
            roles.append("anchor" if slot < anchors else "open")
    return build_group_index(ids, roles, anchors=1, open_=1, source="test"), ids, roles


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 5), st.integers(0, 3), st.data())
@settings(max_examples=100, deadline=None)
def test_every_visit_is_one_whole_intent(
    intents: int, anchors: int, opens: int, seed: int, data: st.DataObject
) -> None:
    index, ids, roles = index_of(intents, anchors, opens)
    m, n = data.draw(st.integers(1, anchors)), data.draw(st.integers(1, opens))
    sampler = MetaGroupSampler(index, anchors=m, open_=n, shuffle=True, seed=seed)
    rows = list(sampler)
    assert len(rows) == len(sampler) == intents * (m + n)
    seen = []
    for start in range(0, len(rows), m + n):
        visit = rows[start : start + m + n]
        assert len(set(visit)) == m + n
        assert len({ids[row] for row in visit}) == 1
        assert [roles[row] for row in visit] == ["anchor"] * m + ["open"] * n
        seen.append(ids[visit[0]])
    assert Counter(seen) == {f"intent-{i}": 1 for i in range(intents)}


def test_the_seed_decides_and_epochs_differ() -> None:
    index, _, _ = index_of(20, 1, 5)

    def epochs(seed: int) -> list[list[int]]:
        sampler = MetaGroupSampler(index, anchors=1, open_=3, shuffle=True, seed=seed)
        return [list(sampler) for _ in range(3)]

    first = epochs(1)
    assert first == epochs(1)
    assert first != epochs(2)
    assert first[0] != first[1] != first[2]


def test_without_shuffle_intents_come_in_order() -> None:
    index, ids, _ = index_of(5, 1, 3)
    sampler = MetaGroupSampler(index, anchors=1, open_=3, shuffle=False, seed=0)
    assert [ids[row] for row in list(sampler)[::4]] == [f"intent-{i}" for i in range(5)]


def loader_for(index: GroupIndex, batch_size: int, workers: int) -> StatefulDataLoader:
    sampler = MetaGroupSampler(index, anchors=1, open_=3, shuffle=True, seed=7)
    return StatefulDataLoader(
        range(60), batch_size=batch_size, sampler=sampler, num_workers=workers, drop_last=True, collate_fn=list
    )


def batches(loader: StatefulDataLoader) -> Iterator[list[int]]:
    """Over as many epochs as are asked for, as verl's trainer reads them."""
    while True:
        yield from loader


@pytest.mark.parametrize(
    ("batch_size", "done", "workers"), [(b, d, 0) for b in (1, 4, 8) for d in (1, 3, 7, 10)] + [(4, 7, 1)]
)
def test_a_resumed_loader_continues_where_it_was(batch_size: int, done: int, workers: int) -> None:
    index, _, _ = index_of(10, 1, 5)
    whole = list(islice(batches(loader_for(index, batch_size, workers)), done + 30))

    loader = loader_for(index, batch_size, workers)
    got = list(islice(batches(loader), done))
    resumed = loader_for(index, batch_size, workers)
    resumed.load_state_dict(loader.state_dict())
    assert got + list(islice(batches(resumed), 30)) == whole
