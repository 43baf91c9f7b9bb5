"""The table: every domain and split, then its lines by role, harm and framing. Splits are never pooled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from verl_air.evaluation.capability import ROLE
from verl_air.evaluation.metrics import ALL_DOMAINS, MetaGroup, absent_intents, meta_groups
from verl_air.evaluation.records import ScoredRollout, source_name
from verl_air.evaluation.statistics import NOTHING, Estimate, ratio_of, share_of


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


def estimate(
    groups: Sequence[MetaGroup], intervals: bool = True, absent: int = 0, *, group_interval: bool | None = None
) -> Estimates:
    """Estimate all of them.

    Args:
        groups: of one split, so that each is an intent of its own.
        intervals: False for the values alone.
        absent: intents of the data file of which no row is there.
        group_interval: whether group accuracy has an interval, if that differs.
    """
    accs = [[rollout.acc for rollout in group.rollouts if rollout.judged] for group in groups]
    completions, judged = sum(len(group.rollouts) for group in groups), sum(map(len, accs))
    right = np.array([group.all_right for group in groups] + [0.0] * absent)
    consistent = np.array([group.all_right + group.all_wrong for group in groups] + [0.0] * absent)
    return Estimates(
        prompts=ratio_of(np.array([*map(sum, accs)], float), np.array([*map(len, accs)], float), intervals),
        groups=share_of(right, intervals if group_interval is None else group_interval),
        consistent=share_of(consistent, intervals),
        intents=len(groups) + absent,
        incomplete=sum(group.incomplete for group in groups) + absent,
        completions=completions,
        abstained=1 - judged / completions if completions else None,
    )


@dataclass(frozen=True)
class SectionLine:
    """One line. kind: ``role``, ``harm``, ``category``, ``family`` or ``context``; name: its value."""

    kind: str
    name: str
    estimates: Estimates


@dataclass(frozen=True)
class Section:
    """One domain and split: the estimates of all of it, and its lines.

    sized: the file can tell whether rows or intents are missing.
    """

    domain: str
    split: str
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


def breakdown(rollouts: Iterable[ScoredRollout], intervals: bool = True) -> list[Section]:
    """Sections by domain and split; with several domains also one over all of them, first.

    Args:
        rollouts: of one evaluation.
        intervals: False for values alone, which is far faster, with an interval of the section's group accuracy only.
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
    return [_section(*source, groups, intervals) for source, groups in sources]


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


def _section(domain: str, split: str, groups: list[MetaGroup], intervals: bool) -> Section:
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
            lines.append(SectionLine(kind, name, estimate(own, intervals, lost)))
    whole = estimate(groups, intervals, absent, group_interval=True)
    return Section(domain, split, whole, tuple(lines), all(rollout.sized for rollout in rollouts))
