"""The table: every domain and split, then its lines by role, harm, framing and novelty. Splits are never pooled.

Novelty is what is new about a held-out meta-group: its intent, its framings, or both. A drop in accuracy then has a
name: an unseen intent is another failure than an unseen framing. It is taken from what training has seen where that is
known, else from ``shift`` in the rows' extras (``verl_air.data.splits``).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from verl_air.data.schema import read_extra_info
from verl_air.errors import DataError
from verl_air.evaluation.metrics import ALL_DOMAINS, MetaGroup, meta_groups
from verl_air.evaluation.records import ScoredRollout, source_name
from verl_air.evaluation.statistics import LEVEL, NOTHING, Estimate, ratio_of, share_of

NOVELTIES = ("nothing new", "new framings", "new intents", "new intents and framings", "unknown")


@dataclass(frozen=True)
class SeenInTraining:
    """(domain, intent) and (domain, family of an open row) of the training data."""

    intents: frozenset[tuple[str, str]]
    families: frozenset[tuple[str, str]]

    @classmethod
    def from_rollouts(cls, rollouts: Iterable[ScoredRollout]) -> SeenInTraining:
        """From stored rollouts of training."""
        return cls._of((rollout.domain, rollout.intent_id, rollout.role, rollout.family) for rollout in rollouts)

    @classmethod
    def from_files(cls, paths: Iterable[str | os.PathLike[str]]) -> SeenInTraining:
        """From training files (parquet).

        Raises:
            DataError: a file cannot be read, or there are no rows.
        """
        columns = [read_extra_info(path, ("domain", "intent_id", "role", "family")) for path in paths]
        rows = [row for column in columns for row in zip(*column.values(), strict=True)]
        if not rows:
            raise DataError("no training rows: new intents and framings cannot be identified")
        return cls._of(rows)

    @classmethod
    def _of(cls, rows: Iterable[tuple[str, str, str, str]]) -> SeenInTraining:
        rows = set(rows)
        return cls(
            frozenset((domain, intent) for domain, intent, _, _ in rows),
            frozenset((domain, family) for domain, _, role, family in rows if role == "open"),
        )


def novelty_of(group: MetaGroup, seen: SeenInTraining | None = None) -> str:
    """One of :data:`NOVELTIES`."""
    if seen is not None:
        families = {rollout.family for rollout in group.rollouts if rollout.role == "open"}
        new_intent = group.intent not in seen.intents
        new_framing = any((group.domain, family) not in seen.families for family in families)
        return NOVELTIES[2 * new_intent + new_framing]
    shifts = {str(rollout.extras.get("shift", "")) for rollout in group.rollouts}
    known = ("none", "framing", "intent", "intent+framing")
    return NOVELTIES[known.index(shift)] if len(shifts) == 1 and (shift := shifts.pop()) in known else "unknown"


@dataclass(frozen=True)
class Estimates:
    """The numbers of one line of the table.

    prompts: accuracy of completions (bootstrap over intents).
    groups: group accuracy (Wilson; bootstrap over intents if a prompt has several completions or an intent several
        splits).
    consistent: share of meta-groups whose prompts all get the same verdict, right or wrong.
    intents, completions: how many there are, judged or not.
    abstained: share of completions without a verdict; None if there is no completion.
    """

    prompts: Estimate = NOTHING
    groups: Estimate = NOTHING
    consistent: Estimate = NOTHING
    intents: int = 0
    completions: int = 0
    abstained: float | None = None


def estimate(rollouts: Iterable[ScoredRollout], level: float | None = LEVEL) -> Estimates:
    """Estimate all of them. ``level``: nominal coverage of the intervals; None for the values alone."""
    groups = meta_groups(rollouts)
    accs = [[rollout.acc for rollout in group.rollouts if rollout.judged] for group in groups]
    completions, judged = sum(len(group.rollouts) for group in groups), sum(map(len, accs))
    cluster_Z, counts = _intents(groups), [group for group in groups if group.counts]
    consistent_Z = np.array([group.all_right + group.all_wrong for group in counts])
    return Estimates(
        prompts=ratio_of(np.array([*map(sum, accs)]), np.array([float(len(acc)) for acc in accs]), cluster_Z, level),
        groups=group_share(counts, level),
        consistent=share_of(consistent_Z, _intents(counts), level),
        intents=len(set(cluster_Z.tolist())),
        completions=completions,
        abstained=1 - judged / completions if completions else None,
    )


def group_share(groups: Iterable[MetaGroup], level: float | None = LEVEL) -> Estimate:
    """Group accuracy of the groups that count."""
    counts = [group for group in groups if group.counts]
    return share_of(np.array([group.all_right for group in counts]), _intents(counts), level)


def _intents(groups: Iterable[MetaGroup]) -> np.ndarray:
    number: dict[tuple[str, str], int] = {}
    return np.array([number.setdefault(group.intent, len(number)) for group in groups], dtype=int)


@dataclass(frozen=True)
class SectionLine:
    """One line. kind: ``role``, ``harm``, ``family``, ``context`` or ``novelty``; name: its value."""

    kind: str
    name: str
    estimates: Estimates


@dataclass(frozen=True)
class Section:
    """One domain and split: the estimates of all of it, and its lines.

    novelty: of its meta-groups, most frequent first; a single one, unless the split is mixed.
    """

    domain: str
    split: str
    novelty: tuple[str, ...]
    whole: Estimates
    lines: tuple[SectionLine, ...] = ()

    @property
    def name(self) -> str:
        """As in ``data_source``."""
        return source_name(self.domain, self.split)

    def line(self, kind: str, name: str) -> Estimates | None:
        """The estimates of a line, if it is there."""
        return next((line.estimates for line in self.lines if (line.kind, line.name) == (kind, name)), None)


def breakdown(
    rollouts: Iterable[ScoredRollout], seen: SeenInTraining | None = None, level: float | None = LEVEL
) -> list[Section]:
    """Sections by domain and split; with several domains also one over all of them, first.

    Args:
        rollouts: of one evaluation.
        seen: what training has seen, if it is known.
        level: nominal coverage of the intervals; None for values alone, which is far faster, with an interval of the
            section's group accuracy only.
    """
    by_source: dict[tuple[str, str], list[ScoredRollout]] = defaultdict(list)
    for rollout in rollouts:
        by_source[rollout.domain, rollout.split].append(rollout)
    sources = sorted(by_source.items())
    if len({domain for domain, _ in by_source}) > 1:
        pooled: dict[str, list[ScoredRollout]] = defaultdict(list)
        for (_, split), rows in sources:
            pooled[split] += rows
        sources = [((ALL_DOMAINS, split), rows) for split, rows in sorted(pooled.items())] + sources
    return [_section(*source, rows, seen, level) for source, rows in sources]


# Kind of line -> its name for a rollout; None leaves the rollout out. Framings and harm are over open rows: the anchors
# measure what the model knows, the open rows what it does.
_KINDS: dict[str, Callable[[ScoredRollout], str | None]] = {
    "role": lambda rollout: rollout.role,
    "harm": lambda rollout: (
        {True: "harmful", False: "benign", None: None}[rollout.harmful] if rollout.role == "open" else None
    ),
    "family": lambda rollout: rollout.family if rollout.role == "open" else None,
    "context": lambda rollout: rollout.context if rollout.context != rollout.family else None,
}


def _section(
    domain: str, split: str, rollouts: list[ScoredRollout], seen: SeenInTraining | None, level: float | None
) -> Section:
    lines = []
    for kind, name_of in _KINDS.items():
        named: dict[str, list[ScoredRollout]] = defaultdict(list)
        for rollout in rollouts:
            if name := name_of(rollout):
                named[name].append(rollout)
        lines += [SectionLine(kind, name, estimate(rows, level)) for name, rows in sorted(named.items())]
    new: dict[str, list[ScoredRollout]] = defaultdict(list)
    for group in (groups := meta_groups(rollouts)):
        new[novelty_of(group, seen)] += group.rollouts
    if len(new) > 1:
        lines += [SectionLine("novelty", name, estimate(new[name], level)) for name in NOVELTIES if name in new]
    by_size = tuple(sorted(new, key=lambda name: (-len(new[name]), name)))
    whole = estimate(rollouts, level)
    if level is None:
        whole = replace(whole, groups=group_share(groups))
    return Section(domain, split, by_size, whole, tuple(lines))
