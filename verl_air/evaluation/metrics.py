"""Accuracy and group accuracy of scored rollouts, without intervals; and the training metrics that rollouts hold.

torch comes with ``verl_air.objective``, so that is imported where it is needed: ``verl-air report --help`` stays fast.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from verl_air.evaluation.records import PromptKey, ScoredRollout

ALL_DOMAINS = "all domains"
"""The domain's name where several are pooled: intents of different domains are different intents."""


@dataclass(frozen=True)
class MetaGroup:
    """All completions of one intent in one split.

    all_right, all_wrong: probability that one completion of each prompt are all right (all wrong): the share over
        prompts that ``verl_air.objective.group_accuracy`` multiplies. 0 or 1 with one completion per prompt.
    judged: every completion has a verdict.
    """

    domain: str
    split: str
    intent_id: str
    rollouts: tuple[ScoredRollout, ...]
    all_right: float
    all_wrong: float
    judged: bool

    @property
    def intent(self) -> tuple[str, str]:
        """What groups of several splits may share; they are then not independent of each other."""
        return self.domain, self.intent_id

    @property
    def prompts(self) -> frozenset[PromptKey]:
        """Its prompts."""
        return frozenset(rollout.prompt_key for rollout in self.rollouts)

    @property
    def counts(self) -> bool:
        """Whether it has a group accuracy. Every table, comparison and metric asks here."""
        return self.judged


def meta_groups(rollouts: Iterable[ScoredRollout]) -> list[MetaGroup]:
    """Rollouts by domain, split and intent, in order of first appearance."""
    from verl_air.objective import group_accuracy

    members: dict[tuple[str, str, str], list[ScoredRollout]] = defaultdict(list)
    for rollout in rollouts:
        members[rollout.domain, rollout.split, rollout.intent_id].append(rollout)
    if not members:
        return []
    number: dict[tuple[int, PromptKey], int] = {}
    rows = [
        (rollout.acc, number.setdefault((z, rollout.prompt_key), len(number)), z)
        for z, group in enumerate(members.values())
        for rollout in group
    ]
    found = group_accuracy(*map(np.array, zip(*rows, strict=True)))
    judged_Z = (found.all_right_Z.tolist(), found.all_wrong_Z.tolist(), found.whole_Z.tolist())
    return [
        MetaGroup(*key, tuple(group), *values) for (key, group), *values in zip(members.items(), *judged_Z, strict=True)
    ]


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a set of rollouts; None where there is nothing to average.

    prompts: mean verdict of the judged completions.
    groups: mean of ``all_right`` over the meta-groups that count.
    completions, intents: how many of each these are over.
    abstained: share of completions without a verdict.
    """

    prompts: float | None
    groups: float | None
    completions: int
    intents: int
    abstained: float | None


def accuracy_of(rollouts: Iterable[ScoredRollout]) -> Accuracy:
    """The paper's two numbers; an intent is identified by domain, split and id."""
    rollouts = list(rollouts)
    judged = [rollout.acc for rollout in rollouts if rollout.judged]
    groups = [group.all_right for group in meta_groups(rollouts) if group.counts]
    abstained = _mean([float(not rollout.judged) for rollout in rollouts])
    return Accuracy(_mean(judged), _mean(groups), len(judged), len(groups), abstained)


def rollout_metrics(rollouts: Iterable[ScoredRollout]) -> dict[str, float]:
    """The ``air/...`` metrics of one training step again, by the names that a run logs; truncation is not stored.

    A rate or mean over nothing is left out. An intent's visits within a step count as one meta-group.
    ``air/gap/mean`` is the gap of raw total rewards.
    """
    rollouts = list(rollouts)
    scored = [rollout for rollout in rollouts if math.isfinite(rollout.score) and rollout.judged]
    anchors = [rollout for rollout in scored if rollout.role == "anchor"]
    opens = [rollout for rollout in scored if rollout.role == "open"]
    scores: dict[tuple[str, ...], set[float]] = defaultdict(set)
    for rollout in scored:
        scores[(rollout.domain, rollout.intent_id, *rollout.prompt_key)].add(rollout.score)
    found = {
        "air/gap/mean": _mean(_gaps([*anchors, *opens])),
        "air/anchor_reward/mean": _mean([rollout.score for rollout in anchors]),
        "air/open_reward/mean": _mean([rollout.score for rollout in opens]),
        "air/anchor_acc": _mean([rollout.acc for rollout in anchors]),
        "air/open_acc": _mean([rollout.acc for rollout in opens]),
        "air/judge/abstain_rate": _mean([float(not r.judged) for r in rollouts if r.role == "open"]),
        "air/zero_std_rate": _mean([float(len(values) == 1) for values in scores.values()]),
    }
    return {name: value for name, value in found.items() if value is not None}


def _gaps(scored: list[ScoredRollout]) -> list[float]:
    import torch

    from verl_air.objective import group_trajectories

    intents = [(rollout.domain, rollout.intent_id) for rollout in scored]
    prompts = [(*intent, *rollout.prompt_key) for intent, rollout in zip(intents, scored, strict=True)]
    intent_id, prompt_id = ({key: i for i, key in enumerate(dict.fromkeys(keys))} for keys in (intents, prompts))
    groups = group_trajectories(
        torch.tensor([rollout.score for rollout in scored], dtype=torch.float64),
        torch.tensor([prompt_id[key] for key in prompts], dtype=torch.long),
        torch.tensor([intent_id[key] for key in intents], dtype=torch.long),
        torch.tensor([rollout.role == "anchor" for rollout in scored], dtype=torch.bool),
    )
    return groups.gap_Z.tolist()


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
