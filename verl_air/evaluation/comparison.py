"""Two runs on the same intents: the paired difference, which is far sharper than two intervals side by side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

import numpy as np

from verl_air.errors import DataError
from verl_air.evaluation.metrics import ALL_DOMAINS, GroupKey, MetaGroup, absent_intents, meta_groups
from verl_air.evaluation.records import ScoredRollout, source_name
from verl_air.evaluation.statistics import Estimate, difference_of, paired_p

_Pair: TypeAlias = tuple[MetaGroup, MetaGroup]


@dataclass(frozen=True)
class Comparison:
    """B compared with A in one domain and split; differences are B - A.

    intents: those of both, with the same prompts. An incomplete one is not right where it is incomplete.
    incomplete: how many of them are, in A or in B.
    left_out: meta-groups that only one of them has, or whose prompts differ.
    groups_a, groups_b, groups: group accuracy, and its difference.
    prompts_a, prompts_b, prompts: accuracy, each intent weighing alike, over intents that are complete in both; None if
        there are none.
    only_a, only_b: meta-groups that are all right in one of them only; None with several completions per prompt.
    p: of no difference in group accuracy, see :func:`~verl_air.evaluation.statistics.paired_p`.
    test: ``mcnemar`` (exact), or its generalisation ``sign-flip`` with several completions per prompt.
    """

    domain: str
    split: str
    intents: int
    incomplete: int
    left_out: int
    groups_a: float
    groups_b: float
    groups: Estimate
    prompts_a: float | None
    prompts_b: float | None
    prompts: Estimate
    only_a: int | None
    only_b: int | None
    p: float
    test: str

    @property
    def name(self) -> str:
        """As in ``data_source``."""
        return source_name(self.domain, self.split)


def compare(a: Iterable[ScoredRollout], b: Iterable[ScoredRollout]) -> list[Comparison]:
    """Compare two evaluations, by domain and split; with several domains also over all of them.

    Raises:
        DataError: they have no meta-group in common.
    """
    groups_a, groups_b = meta_groups(a), meta_groups(b)
    by_key_a, by_key_b = ({group.key: group for group in groups} for groups in (groups_a, groups_b))
    absent_a, absent_b = absent_intents(groups_a), absent_intents(groups_b)
    pairs: dict[tuple[str, str], list[_Pair]] = defaultdict(list)
    left_out: Counter[tuple[str, str]] = Counter()
    keys = sorted({*by_key_a, *by_key_b})
    several = len({domain for domain, _, _ in keys}) > 1
    for key in keys:
        pair = (
            by_key_a.get(key, _absent(key) if absent_a[key[:2]] else None),
            by_key_b.get(key, _absent(key) if absent_b[key[:2]] else None),
        )
        for source in [(ALL_DOMAINS, key[1]), key[:2]] if several else [key[:2]]:
            if _comparable(pair):
                pairs[source].append(pair)
            else:
                left_out[source] += 1
    if not pairs:
        raise DataError(
            "the two evaluations have no meta-group in common with the same prompts: nothing can be paired. Were they "
            "run on the same validation files?"
        )
    return [_compare_pairs(source, pairs[source], left_out[source]) for source in sorted(pairs)]


def _compare_pairs(source: tuple[str, str], pairs: list[_Pair], left_out: int) -> Comparison:
    right_a, right_b = np.array([[group.all_right for group in pair] for pair in pairs]).T
    complete = [pair for pair in pairs if not any(group.incomplete for group in pair)]
    accs = [[np.mean([rollout.acc for rollout in group.rollouts]) for group in pair] for pair in complete]
    acc_a, acc_b = np.array(accs, float).reshape(-1, 2).T
    binary = bool(np.isin([right_a, right_b], (0.0, 1.0)).all())
    return Comparison(
        *source,
        intents=len(pairs),
        incomplete=len(pairs) - len(complete),
        left_out=left_out,
        groups_a=float(right_a.mean()),
        groups_b=float(right_b.mean()),
        groups=difference_of(right_b - right_a),
        prompts_a=float(acc_a.mean()) if complete else None,
        prompts_b=float(acc_b.mean()) if complete else None,
        prompts=difference_of(acc_b - acc_a),
        only_a=int((right_a > right_b).sum()) if binary else None,
        only_b=int((right_b > right_a).sum()) if binary else None,
        p=paired_p(right_b - right_a),
        test="mcnemar" if binary else "sign-flip",
    )


def _absent(key: GroupKey) -> MetaGroup:
    """In place of an intent of which a run lacks every row."""
    return MetaGroup(*key, rollouts=(), all_right=0.0, all_wrong=0.0, incomplete=True, missing=1)


def _comparable(pair: tuple[MetaGroup | None, MetaGroup | None]) -> TypeGuard[_Pair]:
    """Both have the same prompts, except for those that one of them lacks."""
    a, b = pair
    return (
        a is not None
        and b is not None
        and (a.missing > 0 or a.prompts >= b.prompts)
        and (b.missing > 0 or b.prompts >= a.prompts)
    )
