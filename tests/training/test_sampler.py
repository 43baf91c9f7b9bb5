"""Whole meta-groups, in an order that the seed decides and a resumed run continues."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchdata.stateful_dataloader import StatefulDataLoader

from verl_air.data.groups import GroupIndex, build_group_index
from verl_air.data.mixing import mix
from verl_air.errors import ConfigError, DataError
from verl_air.training.sampler import MetaGroupSampler, report_left_out


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
    assert len(sampler) == intents * (m + n)
    rows = list(islice(sampler, len(sampler)))
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
        rows = iter(sampler)
        return [list(islice(rows, len(sampler))) for _ in range(3)]

    first = epochs(1)
    assert first == epochs(1)
    assert first != epochs(2)
    assert first[0] != first[1] != first[2]
    intents = [Counter(row % 20 for row in epoch) for epoch in first]
    assert intents == [dict.fromkeys(range(20), 4)] * 3, "each intent once per epoch"


def test_without_shuffle_intents_come_in_order() -> None:
    index, ids, _ = index_of(5, 1, 3)
    sampler = MetaGroupSampler(index, anchors=1, open_=3, shuffle=False, seed=0)
    assert [ids[row] for row in islice(sampler, 0, 20, 4)] == [f"intent-{i}" for i in range(5)]


def loader_for(index: GroupIndex, batch_size: int, workers: int) -> StatefulDataLoader:
    sampler = MetaGroupSampler(index, anchors=1, open_=3, shuffle=True, seed=7)
    return StatefulDataLoader(
        range(60), batch_size=batch_size, sampler=sampler, num_workers=workers, drop_last=True, collate_fn=list
    )


@pytest.mark.parametrize(
    ("batch_size", "done", "workers"), [(b, d, 0) for b in (1, 4, 8) for d in (1, 3, 7, 10)] + [(4, 7, 1)]
)
def test_a_resumed_loader_continues_where_it_was(batch_size: int, done: int, workers: int) -> None:
    index, _, _ = index_of(10, 1, 5)
    whole = list(islice(loader_for(index, batch_size, workers), done + 30))

    loader = loader_for(index, batch_size, workers)
    got = list(islice(loader, done))
    resumed = loader_for(index, batch_size, workers)
    resumed.load_state_dict(loader.state_dict())
    assert got + list(islice(resumed, 30)) == whole


@pytest.mark.parametrize("weights", [None, {"safety": 1.0, "moral": 1.0}], ids=["plain", "mixed"])
def test_an_intent_that_is_set_aside_is_replaced_and_stays_aside_after_a_resume(weights: dict | None) -> None:
    index, extras = mixed_index({"safety": 4, "moral": 4})
    names = [name for name in index.names.to_pylist() for _ in range(5)]

    def loader() -> StatefulDataLoader:
        mixture = mix(weights, index, extras) if weights else None
        sampler = MetaGroupSampler(index, anchors=1, open_=3, shuffle=True, seed=7, mixture=mixture)
        return StatefulDataLoader(range(40), batch_size=4, sampler=sampler, num_workers=0, collate_fn=list)

    def intents(of: StatefulDataLoader, n: int) -> list[str]:
        return [names[rows[0]] for rows in islice(of, n)]

    first = loader()
    reading = iter(first)
    next(reading)
    first.sampler.set_aside.add("safety/2")
    later = [names[next(reading)[0]] for _ in range(16)]
    assert "safety/2" not in later[1:]  # one may have been fetched ahead
    assert set(later) >= {name for name in names if name != "safety/2"}
    if weights:
        assert Counter(name.split("/")[0] for name in later) == {"safety": 8, "moral": 8}, "shares are kept"
    resumed = loader()
    resumed.load_state_dict(first.state_dict())
    assert "safety/2" not in intents(resumed, 16)

    first.sampler.set_aside.update(names)
    with pytest.raises(DataError, match="a row of every intent failed again and again: moral/0"):
        next(iter(first.sampler))


# ------------------------------------------------------------------------------------------------------------ mixtures

SIZES = {"safety": 30, "moral": 50, "math": 700}


def mixed_index(sizes: dict[str, int]) -> tuple[GroupIndex, pa.Array]:
    """One anchor and four open rows per intent; every third safety intent is benign."""
    rows = [(f"{domain}/{z}", domain == "safety" and z % 3 > 0) for domain, n in sizes.items() for z in range(n)]
    ids, roles = [name for name, _ in rows for _ in range(5)], ["anchor", *["open"] * 4] * len(rows)
    extras = pa.array([json.dumps({"harmful": harmful, "source": "own"}) for _, harmful in rows for _ in range(5)])
    return build_group_index(ids, roles, anchors=1, open_=3, source="test"), extras


def mixed(
    weights: dict[str, float], sizes: dict[str, int] = SIZES, *, seed: int = 1
) -> tuple[MetaGroupSampler, list[str]]:
    index, extras = mixed_index(sizes)
    sampler = MetaGroupSampler(index, anchors=1, open_=3, shuffle=True, seed=seed, mixture=mix(weights, index, extras))
    return sampler, [name for name in index.names.to_pylist() for _ in range(5)]


def visits(sampler: MetaGroupSampler, of_row: list[str], n: int) -> list[str]:
    """The intents of the first n meta-groups."""
    return [of_row[row] for row in list(islice(sampler, 4 * n))[::4]]


THIRDS = {"safety": 1.0, "moral": 1.0, "math": 1.0}


@pytest.mark.slow
def test_over_10000_steps_each_domain_has_its_share_in_an_order_that_the_seed_fixes() -> None:
    steps, intents = 10_000, 24
    sampler, of_row = mixed(THIRDS)
    seen = visits(sampler, of_row, steps * intents)
    for start in range(0, len(seen), intents):
        step = Counter(name.partition("/")[0] for name in seen[start : start + intents])
        assert step == {"safety": 8, "moral": 8, "math": 8}, "a third each in every step"
    for domain, size in SIZES.items():
        own = [name for name in seen if name.startswith(domain)]
        epochs = [own[start : start + size] for start in range(0, len(own) - size + 1, size)]
        assert all(len(set(epoch)) == size for epoch in epochs), "each intent once per epoch of its domain"
        assert epochs[0] != epochs[1]
    again, _ = mixed(THIRDS)
    assert visits(again, of_row, 1000) == seen[:1000]
    other, _ = mixed(THIRDS, seed=2)
    assert visits(other, of_row, 1000) != seen[:1000]


def test_a_domain_s_order_does_not_depend_on_the_other_domains_or_on_weights() -> None:
    def order(weights: dict[str, float], sizes: dict[str, int]) -> list[str]:
        sampler, of_row = mixed(weights, sizes)
        return [name for name in visits(sampler, of_row, 3000) if name.startswith("moral")][:200]

    assert order(THIRDS, SIZES) == order({"moral": 5, "math": 2}, {"math": 10, "moral": 50})


@pytest.mark.parametrize("weights", [(0.7, 0.2, 0.1), (1, 1, 1), (5, 3, 1e-3), (1, 2, 0.3)])
def test_shares_hold_at_every_moment_to_within_one_visit(weights: tuple[float, ...]) -> None:
    shares = dict(zip(SIZES, weights, strict=True))
    sampler, of_row = mixed(shares)
    counts: Counter[str] = Counter()
    for t, name in enumerate(visits(sampler, of_row, 5000), start=1):
        counts[name.partition("/")[0]] += 1
        assert all(abs(counts[domain] - t * w / sum(weights)) < 1 + 1e-9 for domain, w in shares.items())


def test_harmful_and_benign_are_balanced_within_each_step() -> None:
    sampler, of_row = mixed({"safety/harmful/true": 1, "safety/harmful/false": 1, "moral": 2, "math": 2})
    seen = visits(sampler, of_row, 240)
    for start in range(0, 240, 24):
        safety = [int(name.partition("/")[2]) for name in seen[start : start + 24] if name.startswith("safety")]
        assert len(safety) == 8
        assert sum(z % 3 > 0 for z in safety) == 4


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"safety": 1, "moral": 1}, "700 intents have no weight, e.g. math/0"),
        ({**THIRDS, "maths": 1}, "no intent of data.train_files has the key 'maths'; domains: math, moral, safety"),
        ({"safety/harmful/true": 1, "moral": 1, "math": 1}, "10 intents have no weight, e.g. safety/0"),
        ({**THIRDS, "safety/harmful/yes": 1}, "has the key 'safety/harmful/yes'"),
        ({**THIRDS, "safety/harmful/true": 1, "safety/source/own": 1}, "intent safety/1 has 2 keys"),
    ],
)
def test_weights_that_do_not_fit_the_data_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mixed(weights)


def test_a_plain_domain_gets_the_rest() -> None:
    index, extras = mixed_index(SIZES)
    mixture = mix({**THIRDS, "safety/harmful/true": 1}, index, extras)
    assert [len(members) for members in mixture.members] == [10, 50, 700, 20]


def mixed_loader(batch_size: int, workers: int, weights: dict[str, float] = THIRDS) -> StatefulDataLoader:
    sampler, _ = mixed(weights)
    return StatefulDataLoader(
        range(len(sampler.index) * 5),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        drop_last=True,
        collate_fn=list,
    )


@pytest.mark.parametrize(("batch_size", "done", "workers"), [(1, 7, 0), (4, 33, 0), (12, 70, 0), (12, 70, 1)])
def test_a_mixture_resumes_in_the_middle(batch_size: int, done: int, workers: int) -> None:
    loader = mixed_loader(batch_size, workers)
    whole = list(islice(loader, done + 40))
    loader = mixed_loader(batch_size, workers)
    got = list(islice(iterator := iter(loader), done))
    assert iterator is not None
    trained = loader.sampler.epochs_after(done * batch_size // 4)
    resumed = mixed_loader(batch_size, workers)
    resumed.load_state_dict(loader.state_dict())
    rest = list(islice(resumed, 40))
    assert got + rest == whole
    if batch_size % 4 == 0:
        assert resumed.sampler.epochs_after(0) == trained


def test_epochs_are_counted_for_each_domain() -> None:
    sampler, _ = mixed(THIRDS)
    sampler.epochs_after(100)
    assert sampler.epochs_after(50) == {"safety": 50 / 30, "moral": 50 / 50, "math": 50 / 700}
    index, _ = mixed_index(SIZES)
    assert MetaGroupSampler(index, anchors=1, open_=3, shuffle=True, seed=0).epochs_after(5) == {}


def test_other_weights_apply_from_where_a_run_resumes() -> None:
    loader = mixed_loader(12, 0)
    list(islice(loader, 10))
    state = loader.state_dict()
    resumed = mixed_loader(12, 0, {"safety": 2, "moral": 1, "math": 3})
    resumed.load_state_dict(state)
    _, of_row = mixed(THIRDS)
    seen = Counter(of_row[row].partition("/")[0] for batch in islice(resumed, 20) for row in batch[::4])
    assert seen == {"safety": 20, "moral": 10, "math": 30}


def test_checkpoints_with_and_without_weights() -> None:
    sampler, of_row = mixed(THIRDS)
    iterator = iter(sampler)
    plain = iter(MetaGroupSampler(sampler.index, anchors=1, open_=3, shuffle=True, seed=0))
    list(islice(plain, 4 * 783))  # of 780
    with pytest.warns(UserWarning, match=r"written without air\.domain_weights: each domain begins a new epoch"):
        iterator.load_state_dict(plain.state_dict())
    assert sampler.epochs_after(0) == {"safety": 2, "moral": 2, "math": 2}
    assert len({of_row[row] for row in list(islice(iterator, 360))}) == 90
    with pytest.raises(ConfigError, match=r"written with air\.domain_weights, .* \(safety, moral, math\)"):
        plain.load_state_dict(iterator.state_dict())
    with pytest.raises(ConfigError, match=r"order of prompts is that of verl-air 0\.1"):
        plain.load_state_dict({"epoch": 1, "yielded": 12})


# ------------------------------------------------------------------ intents that verl's prompt filter leaves incomplete


def report(intents: int, batch: int) -> None:
    """Of so many intents, the first six lost a row to the filter."""
    ids = [f"safety/{z}" for z in range(intents) for _ in range(3 if z < 6 else 4)]
    roles = [role for z in range(intents) for role in ("anchor", *["open"] * (2 if z < 6 else 3))]
    index = build_group_index(ids, roles, anchors=1, open_=3, source="x", leave_out_incomplete=True)
    report_left_out(index, batch // 4, max_prompt_length=64)


def test_intents_left_out_are_counted_and_named() -> None:
    message = r"max_prompt_length=64 leaves 6 intents with fewer rows .*: safety/0, safety/1, .* safety/4, \.\.\."
    with pytest.warns(UserWarning, match=message):
        report(intents=10, batch=16)


def test_too_few_intents_left_stop_the_run() -> None:
    with pytest.raises(
        DataError, match=r"leaves 6 intents .* The other 4 are fewer than the 5 of a step: raise the limit"
    ):
        report(intents=10, batch=20)
