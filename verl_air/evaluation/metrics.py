"""Accuracy and group accuracy of scored rollouts, without intervals; and the training metrics that rollouts hold.

torch, which comes with ``verl_air.objective``, and pandas are imported where they are needed: ``verl-air report
--help`` stays fast.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from verl_air.evaluation.records import PromptKey, ScoredRollout

ALL_DOMAINS = "all domains"
"""The domain's name where several are pooled: intents of different domains are different intents."""

GroupKey: TypeAlias = tuple[str, str, str]
"""Domain, split, intent."""


@dataclass(frozen=True)
class MetaGroup:
    """All completions of one intent in one split.

    all_right, all_wrong: probability that one completion of each prompt are all right (all wrong), see
        ``verl_air.objective.group_accuracy``. 0 or 1 with one completion per prompt; both 0 if incomplete.
    incomplete: a row is missing or has no verdict.
    missing: rows that are missing, as far as the file can tell.
    """

    domain: str
    split: str
    intent_id: str
    rollouts: tuple[ScoredRollout, ...]
    all_right: float
    all_wrong: float
    incomplete: bool
    missing: int = 0

    @property
    def key(self) -> GroupKey:
        """Distinct in an evaluation."""
        return self.domain, self.split, self.intent_id

    @property
    def prompts(self) -> frozenset[PromptKey]:
        """Its prompts."""
        return frozenset(rollout.prompt_key for rollout in self.rollouts)


def meta_groups(rollouts: Iterable[ScoredRollout], missing: Mapping[GroupKey, int] | None = None) -> list[MetaGroup]:
    """Rollouts by domain, split and intent, in order of first appearance.

    Args:
        rollouts: of an evaluation.
        missing: rows that each meta-group lacks, for rollouts of one role or framing alone; None: as their
            ``group_size`` says.
    """
    from verl_air.objective import group_accuracy

    members: dict[GroupKey, list[ScoredRollout]] = defaultdict(list)
    for rollout in rollouts:
        members[rollout.domain, rollout.split, rollout.intent_id].append(rollout)
    if not members:
        return []
    number: dict[tuple[int, PromptKey], int] = {}
    rows, lacking = [], []
    for z, (key, group) in enumerate(members.items()):
        lacking.append(max(0, group[0].group_size - len(group)) if missing is None else missing.get(key, 0))
        for rollout in group:
            prompt = number.setdefault((z, rollout.prompt_key), len(number))
            rows.append((rollout.acc, prompt, z, len(group) + lacking[z]))
    found = group_accuracy(*map(np.array, zip(*rows, strict=True)))
    values = (found.all_right_Z.tolist(), found.all_wrong_Z.tolist(), found.incomplete_Z.tolist(), lacking)
    return [
        MetaGroup(*key, tuple(group), *value) for (key, group), *value in zip(members.items(), *values, strict=True)
    ]


def absent_intents(groups: Iterable[MetaGroup]) -> Counter[tuple[str, str]]:
    """Intents of the data file of which no row is there, by domain and split, as far as the file can tell."""
    seen: Counter[tuple[str, str]] = Counter()
    planned: dict[tuple[str, str], int] = {}
    for group in groups:
        seen[group.key[:2]] += 1
        planned[group.key[:2]] = group.rollouts[0].split_intents
    return Counter({source: planned[source] - number for source, number in seen.items() if planned[source] > number})


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of an evaluation; None where there is nothing to average.

    prompts: mean verdict of the judged completions.
    groups: mean of ``all_right`` over all intents of the data file.
    completions: those judged. intents: those of the data file; ``incomplete`` of them lack a row or a verdict.
    abstained: share of completions without a verdict.
    """

    prompts: float | None
    groups: float | None
    completions: int
    intents: int
    incomplete: int
    abstained: float | None


def accuracy_of(rollouts: Iterable[ScoredRollout]) -> Accuracy:
    """The paper's two numbers; an intent is identified by domain, split and id."""
    rollouts = list(rollouts)
    judged = [rollout.acc for rollout in rollouts if rollout.judged]
    groups = meta_groups(rollouts)
    absent = absent_intents(groups).total()
    return Accuracy(
        prompts=_mean(judged),
        groups=_mean([group.all_right for group in groups] + [0.0] * absent),
        completions=len(judged),
        intents=len(groups) + absent,
        incomplete=sum(group.incomplete for group in groups) + absent,
        abstained=_mean([float(not rollout.judged) for rollout in rollouts]),
    )


def rollout_metrics(rollouts: Iterable[ScoredRollout]) -> dict[str, float]:
    """The ``air/...`` metrics of one training step again, by the names that a run logs; truncation is not stored.

    A rate or mean over nothing is left out. An intent's visits within a step count as one meta-group.
    ``air/gap/mean`` is the gap of raw total rewards.
    """
    import pandas as pd
    import torch

    from verl_air.objective import group_trajectories

    table = [
        (r.role, (r.domain, r.intent_id), (r.domain, r.intent_id, *r.prompt_key), r.acc, r.score) for r in rollouts
    ]
    rows = pd.DataFrame(table, columns=["role", "intent", "prompt", "acc", "score"])
    scored = rows.dropna()
    anchors, opens = (scored[scored["role"] == role] for role in ("anchor", "open"))
    ids = [pd.factorize(scored[name])[0] for name in ("prompt", "intent")]
    columns = (scored["score"].to_numpy(float), *ids, (scored["role"] == "anchor").to_numpy(bool))
    found = {
        "air/gap/mean": float(group_trajectories(*map(torch.tensor, columns)).gap_Z.mean()),
        "air/anchor_reward/mean": anchors["score"].mean(),
        "air/open_reward/mean": opens["score"].mean(),
        "air/anchor_acc": anchors["acc"].mean(),
        "air/open_acc": opens["acc"].mean(),
        "air/judge/abstain_rate": rows[rows["role"] == "open"]["acc"].isna().mean(),
        "air/zero_std_rate": (scored.groupby("prompt")["score"].nunique() == 1).mean(),
    }
    return {name: float(value) for name, value in found.items() if not math.isnan(value)}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
