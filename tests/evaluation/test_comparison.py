"""Paired comparisons: exact tests against enumeration, and what may be paired."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.support import record
from verl_air.errors import DataError
from verl_air.evaluation import ScoredRollout, compare
from verl_air.evaluation.statistics import paired_p


def groups(verdicts: str, *, domain: str = "safety", split: str = "id", **columns: int) -> list[ScoredRollout]:
    """A letter an intent: r all right, w one prompt wrong, ? one prompt without verdict, - not there."""
    records = []
    for z, letter in enumerate(verdicts):
        if letter == "-":
            continue
        last = {"r": 1.0, "w": 0.0, "?": None}[letter]
        for s, acc in enumerate((1.0, last)):
            records.append(record(domain=domain, split=split, intent_id=f"z{z}", index=s, acc=acc, **columns))
    return records


def mcnemar(only_a: int, only_b: int) -> float:
    return paired_p(np.array([-1.0] * only_a + [1.0] * only_b + [0.0] * 30))


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(0, 9))
def test_mcnemar_counts_every_way_the_coins_could_fall(only_a: int, only_b: int) -> None:
    n, split = only_a + only_b, abs(only_a - only_b)
    falls = [abs(2 * sum(coins) - n) for coins in product((0, 1), repeat=n)] if n <= 12 else None
    if falls is not None:
        assert mcnemar(only_a, only_b) == pytest.approx(sum(fall >= split for fall in falls) / 2**n)
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a)


def test_mcnemar_of_thousands_of_pairs() -> None:
    assert mcnemar(5000, 5000) == 1.0
    assert 0 <= mcnemar(4000, 6000) < 1e-80


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 6), (2, 11), (3, 12), (8, 9), (0, 1), (0, 0)])
def test_the_sign_flip_test_is_mcnemar_where_both_apply(only_a: int, only_b: int) -> None:
    """Halved, differences are no longer those of one completion per prompt."""
    differences = np.array([-0.5] * only_a + [0.5] * only_b + [0.0] * 30)
    exact = only_a + only_b <= 14
    assert paired_p(differences) == pytest.approx(mcnemar(only_a, only_b), abs=1e-12 if exact else 0.012)


def test_numbers_of_a_comparison() -> None:
    (found,) = compare(groups("rrwwwwww"), groups("rwrrrwww"))
    assert (found.intents, found.left_out, found.only_a, found.only_b) == (8, 0, 1, 3)
    assert (found.groups_a, found.groups_b, found.groups.value) == (0.25, 0.5, 0.25)
    assert found.prompts.value == pytest.approx(0.125)
    assert (found.test, found.p) == ("mcnemar", mcnemar(1, 3))
    assert found.groups.n == 8


def test_an_incomplete_group_is_not_right_where_it_is_incomplete() -> None:
    (found,) = compare(groups("rw?r?w"), groups("rwrrrr"))
    assert (found.intents, found.left_out, found.incomplete) == (6, 0, 2)
    assert (found.groups_a, found.groups_b, found.only_a, found.only_b) == (2 / 6, 5 / 6, 0, 3)
    assert (found.prompts_a, found.prompts_b) == (0.75, 0.875), "of the four intents that are complete in both"
    (found,) = compare(groups("??"), groups("rr"))
    assert (found.groups.value, found.prompts_a, found.prompts.value) == (1.0, None, None)


def test_rows_and_intents_that_a_run_lacks_are_not_right_there() -> None:
    """B lacks a row of z0 and all of z2; z1 has another prompt in B, so it is left out."""
    a = groups("rrr", group_size=2, split_intents=3)
    b = [record(intent_id="z0", index=0, group_size=2, split_intents=3)]
    b += [record(intent_id="z1", index=s + 5, group_size=2, split_intents=3) for s in range(2)]
    (found,), (back,) = compare(a, b), compare(b, a)
    assert (found.intents, found.incomplete, found.left_out) == (2, 2, 1)
    assert (found.groups_a, found.groups_b, back.groups.value) == (1.0, 0.0, 1.0)


def test_what_only_one_run_has_is_left_out_if_the_other_is_not_known_to_lack_it() -> None:
    (found,) = compare(groups("rw-r"), groups("rwrr"))
    assert (found.intents, found.left_out, found.incomplete) == (3, 1, 0)
    other = [record(intent_id="z0", index=s + 50, acc=1.0) for s in range(2)] + groups("-r")
    (found,) = compare(groups("rr"), other)
    assert (found.intents, found.left_out) == (1, 1)


def test_swapping_the_runs_swaps_the_signs() -> None:
    a, b = groups("rrwwwwwwrw"), groups("rwrrrwwwww")
    (ab,), (ba,) = compare(a, b), compare(b, a)
    assert ba.groups.value == -ab.groups.value
    assert (ba.only_a, ba.only_b, ba.p) == (ab.only_b, ab.only_a, ab.p)
    assert ba.groups.low == pytest.approx(-ab.groups.high)


def test_a_run_against_itself() -> None:
    (found,) = compare(groups("rwrwr"), groups("rwrwr"))
    assert (found.p, found.groups.value) == (1.0, 0.0)
    assert found.groups.low < 0 < found.groups.high


def test_domains_are_also_pooled_and_splits_are_not() -> None:
    a = groups("rw", domain="safety") + groups("wwww", domain="moral") + groups("rr", split="ood")
    b = groups("rr", domain="safety") + groups("rrww", domain="moral") + groups("rw", split="ood")
    found = {c.name: c for c in compare(a, b)}
    assert sorted(found) == ["all domains/id", "all domains/ood", "moral/id", "safety/id", "safety/ood"]
    assert found["all domains/id"].intents == 6
    assert found["all domains/id"].groups.value == pytest.approx(3 / 6)


def test_several_completions_are_compared_by_their_shares() -> None:
    a = [record(intent_id=f"z{z}", index=0, acc=float(k < 1)) for z in range(12) for k in range(4)]
    b = [record(intent_id=f"z{z}", index=0, acc=float(k < 2 + z % 2)) for z in range(12) for k in range(4)]
    (found,) = compare(a, b)
    assert (found.test, found.only_a, found.only_b) == ("sign-flip", None, None)
    assert found.groups.value == pytest.approx(0.375)
    assert found.p < 0.005


def test_nothing_in_common_is_an_error_that_says_so() -> None:
    with pytest.raises(DataError, match="no meta-group in common"):
        compare(groups("rr"), groups("rr", split="ood"))
