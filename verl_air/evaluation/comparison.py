"""Two runs on the same intents: the paired difference, which is far sharper than two intervals side by side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

import numpy as np

from verl_air.errors import DataError
from verl_air.evaluation.metrics import ALL_DOMAINS, MetaGroup, meta_groups
from verl_air.evaluation.records import ScoredRollout, source_name
from verl_air.evaluation.statistics import LEVEL, Estimate, difference_of, mcnemar, sign_flip

_Pair: TypeAlias = tuple[MetaGroup, MetaGroup]


@dataclass(frozen=True)
class Comparison:
    """B compared with A in one domain and split; differences are B - A.

    intents: meta-groups that count in both, with the same prompts. All numbers are over these.
    left_out: meta-groups that only one of them has, or that do not count, or whose prompts differ.
    groups_a, groups_b, prompts_a, prompts_b: group accuracy, and accuracy (each intent weighing alike).
    groups, prompts: differences, with intervals by a bootstrap over intents.
    only_a, only_b: meta-groups that are all right in one of them only; None with several completions per prompt.
    p: two-sided, of no difference in group accuracy.
    test: ``mcnemar`` (exact), or its generalisation ``sign-flip`` with several completions per prompt.
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
        """As in ``data_source``."""
        return source_name(self.domain, self.split)


def compare(a: Iterable[ScoredRollout], b: Iterable[ScoredRollout], level: float = LEVEL) -> list[Comparison]:
    """Compare two evaluations, by domain and split; with several domains also over all of them.

    Raises:
        DataError: they have no judged meta-group in common.
    """
    groups_a, groups_b = (
        {(group.domain, group.split, group.intent_id): group for group in meta_groups(rollouts)} for rollouts in (a, b)
    )
    pairs: dict[tuple[str, str], list[_Pair]] = defaultdict(list)
    left_out: Counter[tuple[str, str]] = Counter()
    keys = sorted({*groups_a, *groups_b})
    several = len({domain for domain, _, _ in keys}) > 1
    for key in keys:
        pair = groups_a.get(key), groups_b.get(key)
        for source in [(ALL_DOMAINS, key[1]), key[:2]] if several else [key[:2]]:
            if _comparable(pair):
                pairs[source].append(pair)
            else:
                left_out[source] += 1
    if not pairs:
        raise DataError(
            "the two evaluations have no meta-group in common that was judged whole, with the same prompts: "
            "nothing can be paired. Were they run on the same validation files?"
        )
    return [_compare_pairs(source, pairs[source], left_out[source], level) for source in sorted(pairs)]


def _compare_pairs(source: tuple[str, str], pairs: list[_Pair], left_out: int, level: float) -> Comparison:
    right_a, right_b = np.array([[group.all_right for group in pair] for pair in pairs]).T
    accuracy_a, accuracy_b = np.array(
        [[np.mean([rollout.acc for rollout in group.rollouts]) for group in pair] for pair in pairs]
    ).T
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


def _comparable(pair: tuple[MetaGroup | None, MetaGroup | None]) -> TypeGuard[_Pair]:
    a, b = pair
    return a is not None and b is not None and a.counts and b.counts and a.prompts == b.prompts
