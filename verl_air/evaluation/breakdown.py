"""The table: every domain and split, cut by role, framing, harm and novelty. Splits are never pooled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from verl_air.evaluation.estimates import Estimates, estimate
from verl_air.evaluation.intervals import LEVEL
from verl_air.evaluation.meta_groups import ALL_DOMAINS, meta_groups
from verl_air.evaluation.novelty import NOVELTIES, Met, novelty_of
from verl_air.evaluation.records import Record


@dataclass(frozen=True)
class Part:
    """One line. kind: ``role``, ``harm``, ``family``, ``context`` or ``novelty``; name: its value."""

    kind: str
    name: str
    estimates: Estimates


@dataclass(frozen=True)
class Section:
    """One domain and split: the line over all of it, and its parts.

    novelty: what is new about its meta-groups, most frequent first; a single one, unless the split is mixed.
    """

    domain: str
    split: str
    novelty: tuple[str, ...]
    whole: Estimates
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """As in ``data_source``: ``safety/ood``."""
        return f"{self.domain}/{self.split}" if self.domain else self.split

    def part(self, kind: str, name: str) -> Estimates | None:
        """A line, if it is there."""
        return next((part.estimates for part in self.parts if (part.kind, part.name) == (kind, name)), None)


def breakdown(records: Iterable[Record], met: Met | None = None, level: float = LEVEL) -> list[Section]:
    """Sections by domain and split; with several domains also one over all of them, first.

    Args:
        records: of one evaluation.
        met: what training met; without it ``shift`` in the rows' extras tells what is new.
        level: nominal coverage of the intervals.
    """
    by_source: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        by_source[record.domain, record.split].append(record)
    sources = [(*source, rows) for source, rows in sorted(by_source.items())]
    if len({domain for domain, _, _ in sources}) > 1:
        for split in sorted({split for _, split, _ in sources}, reverse=True):
            rows = [record for _, of_split, found in sources if of_split == split for record in found]
            sources.insert(0, (ALL_DOMAINS, split, rows))
    return [_section(domain, split, rows, met, level) for domain, split, rows in sources]


# Kind of part -> its name for a record; None leaves the record out. Framings and harm are cut on open rows: the anchors
# measure what the model knows, the open rows what it does.
_CUTS: dict[str, Callable[[Record], str | None]] = {
    "role": lambda record: record.role,
    "harm": lambda record: _harm(record) if record.role == "open" else None,
    "family": lambda record: record.family if record.role == "open" else None,
    "context": lambda record: record.context if record.context != record.family else None,
}


def _section(domain: str, split: str, records: list[Record], met: Met | None, level: float) -> Section:
    parts = []
    for kind, name_of in _CUTS.items():
        named: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            if name := name_of(record):
                named[name].append(record)
        parts += [Part(kind, name, estimate(rows, level)) for name, rows in sorted(named.items())]
    new: dict[str, list[Record]] = defaultdict(list)
    for group in meta_groups(records):
        new[novelty_of(group, met)] += group.records
    if len(new) > 1:
        parts += [Part("novelty", name, estimate(new[name], level)) for name in NOVELTIES if name in new]
    by_size = tuple(sorted(new, key=lambda name: (-len(new[name]), name)))
    return Section(domain, split, by_size, estimate(records, level), tuple(parts))


def _harm(record: Record) -> str | None:
    return None if record.harmful is None else ("harmful" if record.harmful else "benign")
