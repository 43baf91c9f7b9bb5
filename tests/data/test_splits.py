from __future__ import annotations

import csv
import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.support import SHARED, needs_shared
from verl_air.data import near_duplicates as near_duplicates_module
from verl_air.data.framings import FramingTemplate
from verl_air.data.intents import Exclusions, IntentSpec
from verl_air.data.near_duplicates import clusters, near_duplicates
from verl_air.data.safety import make_safety_intent
from verl_air.data.splits import drop_leaks, split_framings, split_intents
from verl_air.errors import DataError

SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u")]


def intents(n: int, kind: str = "harmful", seed: int = 0) -> list[IntentSpec]:
    rng = random.Random(f"{kind}{seed}")
    return [make_safety_intent(f"{kind} {n} " + " ".join(rng.sample(SYLLABLES, 6)), kind) for n in range(n)]


def ids(some: list[IntentSpec]) -> set[str]:
    return {intent.intent_id for intent in some}


@given(st.integers(4, 40), st.integers(4, 20), st.integers(0, 5))
def test_a_share_is_held_out_of_each_stratum(harmful: int, benign: int, seed: int) -> None:
    everything = [*intents(harmful), *intents(benign, "plain")]
    train, held = split_intents(everything, 0.25, seed)
    assert ids(train).isdisjoint(ids(held))
    assert ids(train) | ids(held) == ids(everything)
    assert Counter(z.stratum for z in held) == {"harmful": round(harmful / 4), "benign": round(benign / 4)}


@given(st.integers(1, 29))
def test_a_number_is_held_out_exactly(number: int) -> None:
    _, held = split_intents([*intents(20), *intents(10, "plain")], number, 0)
    assert len(held) == number


def test_the_seed_decides_and_the_order_does_not() -> None:
    everything = intents(40)
    shuffled = random.Random(1).sample(everything, 40)
    assert ids(split_intents(everything, 0.2, 3)[1]) == ids(split_intents(shuffled, 0.2, 3)[1])
    assert ids(split_intents(everything, 0.2, 3)[1]) != ids(split_intents(everything, 0.2, 4)[1])


@pytest.mark.parametrize("seed", range(8))
def test_near_duplicates_stay_on_one_side(seed: int) -> None:
    twins = [make_safety_intent(z.request + suffix, "harmful") for z in intents(10) for suffix in ("", " now")]
    train, held = split_intents([*twins, *intents(10, seed=1)], 0.3, seed)
    texts = [z.request for z in (*train, *held)]
    for i, j, _ in near_duplicates(texts):
        assert (i < len(train)) == (j < len(train))
    assert len(held) == 9


@pytest.mark.parametrize("held_out", [0.0, -1, 3, 10])
def test_too_few_intents_are_an_error(held_out: float) -> None:
    with pytest.raises(DataError, match="too few"):
        split_intents(intents(3), held_out, 0)


def test_intents_that_are_all_alike_cannot_be_split() -> None:
    alike = [make_safety_intent("the same words again " + mark, "harmful") for mark in ("!", "!!", "?")]
    with pytest.raises(DataError, match="can be while near-duplicates stay together"):
        split_intents(alike, 1, 0)


def test_held_out_near_duplicates_are_dropped_and_counted() -> None:
    train = intents(5)
    leak = make_safety_intent(train[0].request.upper() + "!", "harmful")
    fresh = intents(2, seed=9)
    exclusions = Exclusions()
    assert drop_leaks(train, [leak, *fresh], exclusions) == fresh
    assert exclusions.counts == {"held-out near-duplicate of a training intent": 1}
    with pytest.raises(DataError, match="every held-out intent"):
        drop_leaks(train, [leak], exclusions)


FRAMINGS = [FramingTemplate(f"{family}-{n}", family, (("user", "{request}"),)) for family in "abc" for n in range(2)]


def test_families_are_divided_whole() -> None:
    sides = split_framings(FRAMINGS, ["c"], {"train": 4, "id": 4, "ood": 2})
    assert {f.family for f in sides["train"]} == {f.family for f in sides["id"]} == {"a", "b"}
    assert {f.family for f in sides["ood"]} == {"c"}


def test_a_side_with_too_few_framings_is_named() -> None:
    with pytest.raises(DataError, match="split 'ood': 3 open rows per intent need as many framings, but there are 2"):
        split_framings(FRAMINGS, ["c"], {"train": 4, "id": 4, "ood": 3})
    with pytest.raises(DataError, match="no framing family 'x'; this domain has a, b, c"):
        split_framings(FRAMINGS, ["x"], {"train": 1, "id": 1, "ood": 1})


WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]


def words(text: str) -> frozenset[str]:
    return frozenset(re.sub(r"[\W_]+", " ", text.lower()).split())


def by_brute_force(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    sets = [words(text) for text in texts]
    return {
        (i, j)
        for j in range(len(sets))
        for i in range(j)
        if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j])
    }


def test_case_punctuation_and_order_of_words_do_not_matter() -> None:
    texts = ["How do I tie a knot?", "something else entirely", "how, do i: TIE a knot", "knot a tie I do how"]
    assert near_duplicates(texts) == [(0, 2, 1.0), (0, 3, 1.0), (2, 3, 1.0)]
    assert clusters(texts).tolist() == [0, 1, 0, 0]


def test_only_pairs_of_two_sides_count() -> None:
    texts = ["a b c d", "a b c d", "x y z", "a b c d"]
    assert [pair[:2] for pair in near_duplicates(texts, np.array([0, 0, 0, 1]))] == [(0, 3), (1, 3)]


@pytest.mark.parametrize("texts", [[], ["one"], ["", ""], ["?!", "—"]])
def test_few_and_empty_texts(texts: list[str]) -> None:
    assert all(len(pair) == 3 for pair in near_duplicates(texts))
    assert len(clusters(texts)) == len(texts)


@settings(max_examples=40)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join), min_size=2, max_size=12))
def test_nothing_is_reported_wrongly_and_equal_texts_are_always_found(texts: list[str]) -> None:
    found = {pair[:2] for pair in near_duplicates(texts, threshold=0.7)}
    assert found <= by_brute_force(texts, 0.7)
    # Of more texts than a bucket's neighbours, equal ones are linked through others: ask for the clusters.
    cluster = clusters(texts)
    assert all(cluster[i] == cluster[j] for i, j in by_brute_force(texts, 1.0))


@settings(max_examples=30)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_texts_does_not_matter(rng) -> None:
    texts = [" ".join(rng.sample(WORDS, 5)) for _ in range(5)]
    order = rng.sample(range(5), 5)
    moved = {frozenset(order[z] for z in pair[:2]) for pair in near_duplicates([texts[z] for z in order])}
    assert moved == {frozenset(pair[:2]) for pair in near_duplicates(texts)}


@pytest.mark.parametrize(("shared", "recall"), [(14, 0.97), (15, 0.99)], ids=["0.70", "0.79"])
def test_recall_at_the_threshold(shared: int, recall: float) -> None:
    """Pairs of 17 words each, 14 in common (Jaccard 14/20) or 15 (15/19); each pair has words of its own."""
    texts = [
        f"{' '.join(f'w{z}c{n}' for n in range(shared))} {' '.join(f'w{z}{side}{n}' for n in range(17 - shared))}"
        for side in "ab"
        for z in range(2000)
    ]
    expected = {(z, z + 2000) for z in range(2000)}
    for sides in (None, np.arange(4000) >= 2000):
        found = {pair[:2] for pair in near_duplicates(texts, sides)}
        assert found <= expected
        assert len(found) >= recall * len(expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_held_out_text_meets_every_training_text_of_its_bucket(seed: int) -> None:
    template = "case {} of {}: ada brings many red apples and some green pears to the old market in the rain"
    texts = [template.format(a, b) for a in SYLLABLES[:20] for b in SYLLABLES[:20]]
    random.Random(seed).shuffle(texts)
    side_Z = np.arange(len(texts)) < 40
    warnings: list[str] = []
    found = {pair[:2] for pair in near_duplicates(texts, side_Z, warnings=warnings)}
    assert (len(found), warnings) == (40 * 360, [])


def test_pairs_that_are_not_compared_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates_module, "_MAX_CANDIDATES", 100)
    alone = ["one two three four", "one two three four five"]
    equal = ["the same six words again: here", "here the same six words again"]
    texts = [*alone, *equal, *(f"the same six words again {n}" for n in ("now", "then") * 20)]
    side_Z = np.arange(len(texts)) % 2 == 0
    warnings: list[str] = []
    assert {(0, 1), (2, 3)} <= {pair[:2] for pair in near_duplicates(texts, side_Z, warnings=warnings)}
    assert re.fullmatch(
        r"near-duplicates may .*: up to [\d,]+ pairs .* not compared \(the limit is 100 pairs\)", warnings[0]
    )
    assert len(warnings) == 1
    clusters(texts, warnings=warnings)
    assert len(warnings) == 2
    with pytest.raises(DataError):
        split_intents(
            [make_safety_intent(f"{text} {'!' * n}", "benign") for n, text in enumerate(texts)], 40, 0, warnings
        )
    assert len(warnings) == 3


@needs_shared
def test_all_pairs_of_advbench_are_found() -> None:
    with (SHARED / "advbench" / "harmful_behaviors.csv").open(encoding="utf-8") as file:
        texts = [row["goal"] for row in csv.DictReader(file)]
    expected = by_brute_force(texts, 0.7)
    assert {pair[:2] for pair in near_duplicates(texts)} == expected
    assert len(expected) > 40
