"""The prompts of one intent, judged together.

With several completions a prompt, "all prompts are right" is read as: draw one completion of each prompt, are all of
them right? Completions are independent given the policy, so the product over prompts of the share that is right is an
unbiased estimate of its probability, and does not shrink as more completions are drawn. With one completion a prompt it
is 0 or 1: the paper's group accuracy.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from verl_air.evaluation.records import Record

ALL_DOMAINS = "all domains"
"""Stands for the domain where several are pooled: intents of different domains are different intents."""


@dataclass(frozen=True)
class MetaGroup:
    """All completions of one intent in one split."""

    domain: str
    split: str
    intent_id: str
    records: tuple[Record, ...]

    @property
    def intent(self) -> tuple[str, str]:
        """What groups of several splits may share; they are then not independent of each other."""
        return self.domain, self.intent_id

    @cached_property
    def whole(self) -> bool:
        """Whether every completion has a verdict; only such a group has a group accuracy."""
        return all(record.judged for record in self.records)

    @cached_property
    def share_right(self) -> dict[tuple[str, str, str], float]:
        """Share of completions that are right, by prompt key."""
        verdicts: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
        for record in self.records:
            verdicts[record.prompt_key].append(record.right)
        return {prompt: sum(right) / len(right) for prompt, right in verdicts.items()}

    @property
    def all_right(self) -> float:
        """Probability that one completion a prompt are all right."""
        return math.prod(self.share_right.values())

    @property
    def same_verdict(self) -> float:
        """Probability that one completion a prompt are all right or all wrong (consistency)."""
        return self.all_right + math.prod(1 - share for share in self.share_right.values())


def meta_groups(records: Iterable[Record]) -> list[MetaGroup]:
    """Records by domain, split and intent, in order of first appearance."""
    groups: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.domain, record.split, record.intent_id].append(record)
    return [MetaGroup(*key, tuple(rows)) for key, rows in groups.items()]
