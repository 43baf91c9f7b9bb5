from __future__ import annotations

import csv
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.support import SHARED, needs_shared
from verl_air.data.near_duplicates import clusters, near_duplicates

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


def test_case_punctuation_and_order_are_no_matter() -> None:
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
def test_the_order_of_the_texts_has_no_say(rng) -> None:
    texts = [" ".join(rng.sample(WORDS, 5)) for _ in range(5)]
    order = rng.sample(range(5), 5)
    moved = {frozenset(order[z] for z in pair[:2]) for pair in near_duplicates([texts[z] for z in order])}
    assert moved == {frozenset(pair[:2]) for pair in near_duplicates(texts)}


@needs_shared
def test_all_pairs_of_advbench_are_found() -> None:
    with (SHARED / "advbench" / "harmful_behaviors.csv").open(encoding="utf-8") as file:
        texts = [row["goal"] for row in csv.DictReader(file)]
    expected = by_brute_force(texts, 0.7)
    assert {pair[:2] for pair in near_duplicates(texts)} == expected
    assert len(expected) > 40
