"""Two runs on the same intents: the paired difference, which is far sharper than two intervals side by side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

import numpy as np

from verl_air.errors import DataError
from verl_air.evaluation.intervals import LEVEL, Estimate, difference_of
from verl_air.evaluation.meta_groups import ALL_DOMAINS, MetaGroup, meta_groups
from verl_air.evaluation.records import Record

_FLIPS = 20_000

_Pair: TypeAlias = tuple[MetaGroup, MetaGroup]


@dataclass(frozen=True)
class Comparison:
    """B against A in one domain and split; differences are B - A.

    intents: meta-groups judged whole in both, with the same prompts. All numbers are over these.
    left_out: meta-groups that only one of them has, or that were not judged whole, or whose prompts differ.
    groups_a, groups_b, prompts_a, prompts_b: group accuracy, and accuracy (each intent weighing alike).
    groups, prompts: differences, with intervals by a bootstrap over intents.
    only_a, only_b: meta-groups that are all right in one of them only; None with several completions a prompt.
    p: two-sided, of no difference in group accuracy.
    test: ``mcnemar`` (exact), or its generalisation ``sign-flip`` with several completions a prompt.
    """

    domain: str
    split: str
    intents: int
    left_out: int
    groups_a: float
    groups_b: float
    groups: Estimate
    prompts_a: float
    prompts_b: float
    prompts: Estimate
    only_a: int | None
    only_b: int | None
    p: float
    test: str

    @property
    def name(self) -> str:
        """As in ``data_source``: ``safety/ood``."""
        return f"{self.domain}/{self.split}" if self.domain else self.split


def compare(a: Iterable[Record], b: Iterable[Record], level: float = LEVEL) -> list[Comparison]:
    """Compare two evaluations, by domain and split; with several domains also over all of them.

    Raises:
        DataError: they have no judged meta-group in common.
    """
    groups_a, groups_b = ({_key(group): group for group in meta_groups(records)} for records in (a, b))
    pairs: dict[tuple[str, str], list[_Pair]] = defaultdict(list)
    left_out: Counter[tuple[str, str]] = Counter()
    several = len({domain for domain, _, _ in (*groups_a, *groups_b)}) > 1
    for key in sorted({*groups_a, *groups_b}):
        pair = groups_a.get(key), groups_b.get(key)
        for source in [(ALL_DOMAINS, key[1]), key[:2]][not several :]:
            if _comparable(pair):
                pairs[source].append(pair)
            else:
                left_out[source] += 1
    found = [_compare_pairs(source, pairs[source], left_out[source], level) for source in sorted(pairs)]
    if not found:
        raise DataError(
            "the two evaluations have no meta-group in common that was judged whole, with the same prompts: "
            "nothing can be paired. Were they run on the same validation files?"
        )
    return found


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test: discordant pairs fall either way with probability 1/2."""
    n = only_a + only_b
    tail = ways = 1
    for k in range(min(only_a, only_b)):
        ways = ways * (n - k) // (k + 1)  # n choose k + 1; whole numbers do not underflow
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def sign_flip(differences_Z: np.ndarray) -> float:
    """Two-sided p-value: is the mean difference larger than with the signs thrown at random? By Monte Carlo.

    With differences of -1, 0 and 1 it is McNemar's test. The observed signs count as one throw, so p is never 0.
    """
    differences_Z = differences_Z[differences_Z != 0]
    observed = abs(differences_Z.sum()) - 1e-12
    rng = np.random.default_rng(20260)
    at_least = 1
    for _ in range(_FLIPS // 1000):
        signs_BZ = rng.integers(0, 2, size=(1000, len(differences_Z))) * 2 - 1
        at_least += int((np.abs(signs_BZ @ differences_Z) >= observed).sum())
    return at_least / (_FLIPS + 1)


def _compare_pairs(source: tuple[str, str], pairs: list[_Pair], left_out: int, level: float) -> Comparison:
    right_a, right_b = (np.array([pair[side].all_right for pair in pairs]) for side in (0, 1))
    accuracy_a, accuracy_b = (np.array([_accuracy(pair[side]) for pair in pairs]) for side in (0, 1))
    binary = bool(np.isin([right_a, right_b], (0.0, 1.0)).all())
    only_a, only_b = int((right_a > right_b).sum()), int((right_b > right_a).sum())
    return Comparison(
        *source,
        intents=len(pairs),
        left_out=left_out,
        groups_a=float(right_a.mean()),
        groups_b=float(right_b.mean()),
        groups=difference_of(right_b - right_a, level),
        prompts_a=float(accuracy_a.mean()),
        prompts_b=float(accuracy_b.mean()),
        prompts=difference_of(accuracy_b - accuracy_a, level),
        only_a=only_a if binary else None,
        only_b=only_b if binary else None,
        p=mcnemar(only_a, only_b) if binary else sign_flip(right_b - right_a),
        test="mcnemar" if binary else "sign-flip",
    )


def _key(group: MetaGroup) -> tuple[str, str, str]:
    return group.domain, group.split, group.intent_id


def _comparable(pair: tuple[MetaGroup | None, MetaGroup | None]) -> TypeGuard[_Pair]:
    a, b = pair
    return a is not None and b is not None and a.whole and b.whole and a.share_right.keys() == b.share_right.keys()


def _accuracy(group: MetaGroup) -> float:
    return float(np.mean([record.acc for record in group.records]))
