"""The table: every domain and split, then its lines by role, harm, framing and novelty. Splits are never pooled.

Novelty is what is new about a held-out meta-group: its intent, its framings, or both. A drop in accuracy then has a
name: an unseen intent is another failure than an unseen framing. It is taken from what training has seen where that is
known, else from ``shift`` in the rows' extras (``verl_air.data.splits``).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from verl_air.data.schema import read_extra_info
from verl_air.errors import DataError
from verl_air.evaluation.capability import ROLE
from verl_air.evaluation.metrics import ALL_DOMAINS, MetaGroup, absent_intents, meta_groups
from verl_air.evaluation.records import ScoredRollout, source_name
from verl_air.evaluation.statistics import LEVEL, NOTHING, Estimate, ratio_of, share_of

NOVELTIES = ("nothing new", "new framings", "new intents", "new intents and framings", "unknown")


@dataclass(frozen=True)
class SeenInTraining:
    """(domain, intent) and (domain, family of an open row) of the training data."""

    intents: frozenset[tuple[str, str]]
    families: frozenset[tuple[str, str]]

    @classmethod
    def from_files(cls, paths: Iterable[str | os.PathLike[str]]) -> SeenInTraining:
        """From training files (parquet).

        Raises:
            DataError: a file cannot be read, or there are no rows.
        """
        columns = [read_extra_info(path, ("domain", "intent_id", "role", "family")) for path in paths]
        rows = {row for column in columns for row in zip(*column.values(), strict=True)}
        if not rows:
            raise DataError("no training rows: new intents and framings cannot be identified")
        return cls(
            frozenset((domain, intent) for domain, intent, _, _ in rows),
            frozenset((domain, family) for domain, _, role, family in rows if role == "open"),
        )


def novelty_of(group: MetaGroup, seen: SeenInTraining | None = None) -> str:
    """One of :data:`NOVELTIES`."""
    if seen is not None:
        families = {rollout.family for rollout in group.rollouts if rollout.role == "open"}
        new_intent = (group.domain, group.intent_id) not in seen.intents
        new_framing = any((group.domain, family) not in seen.families for family in families)
        return NOVELTIES[2 * new_intent + new_framing]
    shifts = {str(rollout.extras.get("shift", "")) for rollout in group.rollouts}
    known = ("none", "framing", "intent", "intent+framing")
    return NOVELTIES[known.index(shift)] if len(shifts) == 1 and (shift := shifts.pop()) in known else "unknown"


@dataclass(frozen=True)
class Estimates:
    """The numbers of one line of the table.

    prompts: accuracy of the completions with a verdict (bootstrap over intents).
    groups: group accuracy over all intents (Wilson; bootstrap if a prompt has several completions).
    consistent: share of intents whose prompts all get the same verdict, right or wrong.
    intents: those of the data file; ``incomplete`` of them lack a row or a verdict, so they are neither right nor
        consistent.
    completions: how many there are, judged or not. abstained: share of them without a verdict; None without any.
    """

    prompts: Estimate = NOTHING
    groups: Estimate = NOTHING
    consistent: Estimate = NOTHING
    intents: int = 0
    incomplete: int = 0
    completions: int = 0
    abstained: float | None = None


def estimate(groups: Sequence[MetaGroup], level: float | None = LEVEL, absent: int = 0) -> Estimates:
    """Estimate all of them.

    Args:
        groups: of one split, so that each is an intent of its own.
        level: nominal coverage of the intervals; None for the values alone.
        absent: intents of the data file of which no row is there.
    """
    accs = [[rollout.acc for rollout in group.rollouts if rollout.judged] for group in groups]
    completions, judged = sum(len(group.rollouts) for group in groups), sum(map(len, accs))
    consistent = [group.all_right + group.all_wrong for group in groups]
    return Estimates(
        prompts=ratio_of(np.array([*map(sum, accs)], float), np.array([*map(len, accs)], float), level),
        groups=group_share(groups, level, absent),
        consistent=share_of(np.array(consistent + [0.0] * absent), level),
        intents=len(groups) + absent,
        incomplete=sum(group.incomplete for group in groups) + absent,
        completions=completions,
        abstained=1 - judged / completions if completions else None,
    )


def group_share(groups: Iterable[MetaGroup], level: float | None = LEVEL, absent: int = 0) -> Estimate:
    """Group accuracy; arguments as of :func:`estimate`."""
    return share_of(np.array([group.all_right for group in groups] + [0.0] * absent), level)


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
    sized: the file can tell whether rows or intents are missing.
    """

    domain: str
    split: str
    novelty: tuple[str, ...]
    whole: Estimates
    lines: tuple[SectionLine, ...] = ()
    sized: bool = False

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
    by_source: dict[tuple[str, str], list[MetaGroup]] = defaultdict(list)
    for group in meta_groups(rollouts):
        by_source[group.domain, group.split].append(group)
    sources = sorted(by_source.items())
    if len({domain for domain, _ in by_source}) > 1:
        pooled: dict[str, list[MetaGroup]] = defaultdict(list)
        for (_, split), groups in sources:
            pooled[split] += groups
        sources = [((ALL_DOMAINS, split), groups) for split, groups in sorted(pooled.items())] + sources
    return [_section(*source, groups, seen, level) for source, groups in sources]


# Kind of line -> its name for a rollout; None leaves the rollout out. Framings and harm are over open rows: the anchors
# measure what the model knows, the open rows what it does.
_KINDS: dict[str, Callable[[ScoredRollout], str | None]] = {
    "role": lambda rollout: rollout.role if rollout.role != ROLE else None,
    "harm": lambda rollout: (
        {True: "harmful", False: "benign", None: None}[rollout.harmful] if rollout.role == "open" else None
    ),
    "category": lambda rollout: str(rollout.extras.get("category") or "") if rollout.role == "open" else None,
    "family": lambda rollout: rollout.family if rollout.role == "open" else None,
    "context": lambda rollout: rollout.context if rollout.context != rollout.family else None,
}


def _section(
    domain: str, split: str, groups: list[MetaGroup], seen: SeenInTraining | None, level: float | None
) -> Section:
    absent = absent_intents(groups).total()
    sized = all(group.rollouts[0].sized for group in groups)
    missing = {group.key: group.missing for group in groups}
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    lines = []
    for kind, name_of in _KINDS.items():
        named: dict[str, list[ScoredRollout]] = defaultdict(list)
        for rollout in rollouts:
            if name := name_of(rollout):
                named[name].append(rollout)
        for name, rows in sorted(named.items()):
            own = meta_groups(rows, missing)
            # An intent of a data file has anchors and open rows: one without any of a role lost them.
            lost = absent + (len(groups) - len(own)) * sized if kind == "role" else 0
            found = estimate(own, level, lost)
            lines.append(SectionLine(kind, name, found))
    new: dict[str, list[MetaGroup]] = defaultdict(list)
    for group in groups:
        new[novelty_of(group, seen)].append(group)
    if len(new) > 1:
        lines += [SectionLine("novelty", name, estimate(new[name], level)) for name in NOVELTIES if name in new]
    whole = estimate(groups, level, absent)
    if level is None:
        whole = replace(whole, groups=group_share(groups, absent=absent))
    by_size = tuple(sorted(new, key=lambda name: (-len(new[name]), name)))
    return Section(domain, split, by_size, whole, tuple(lines), all(rollout.sized for rollout in rollouts))
