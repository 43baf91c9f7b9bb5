"""What is new about a held-out meta-group: its intent, its framings, or both.

Told from ``shift`` in the rows' extras (``verl_air.data.splits``), or by comparison with what training met. A drop in
accuracy then has a name: an intent never met is another failure than a framing never met.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from verl_air.data.schema import read_extra_info
from verl_air.errors import DataError
from verl_air.evaluation.meta_groups import MetaGroup
from verl_air.evaluation.records import Record

Novelty = Literal["nothing new", "new intents", "new framings", "new intents and framings", "unknown"]
NOVELTIES: tuple[Novelty, ...] = ("nothing new", "new framings", "new intents", "new intents and framings", "unknown")


@dataclass(frozen=True)
class Met:
    """What training met: (domain, intent) and (domain, family of an open row)."""

    intents: frozenset[tuple[str, str]]
    families: frozenset[tuple[str, str]]

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> Met:
        """From stored rollouts of training."""
        return cls._of((record.domain, record.intent_id, record.role, record.family) for record in records)

    @classmethod
    def from_files(cls, paths: Iterable[str | os.PathLike[str]]) -> Met:
        """From training files (parquet).

        Raises:
            DataError: a file cannot be read.
        """
        rows: list[tuple[str, str, str, str]] = []
        for path in paths:
            columns = read_extra_info(path, ("domain", "intent_id", "role", "family"))
            rows += zip(*columns.values(), strict=True)
        if not rows:
            raise DataError("no training rows: what is new cannot be told")
        return cls._of(rows)

    @classmethod
    def _of(cls, rows: Iterable[tuple[str, str, str, str]]) -> Met:
        rows = set(rows)
        return cls(
            frozenset((domain, intent) for domain, intent, _, _ in rows),
            frozenset((domain, family) for domain, _, role, family in rows if role == "open"),
        )


def novelty_of(group: MetaGroup, met: Met | None = None) -> Novelty:
    """What is new about a meta-group; what training met decides where it is known, else the rows' extras do."""
    if met is not None:
        new_intent = group.intent not in met.intents
        open_rows = [record for record in group.records if record.role == "open"]
        new_framing = any((group.domain, record.family) not in met.families for record in open_rows)
        return _name(new_intent, new_framing)
    shifts = {str(record.extras.get("shift", "")) for record in group.records}
    if len(shifts) == 1 and (shift := shifts.pop()) in ("none", "intent", "framing", "intent+framing"):
        return _name("intent" in shift, "framing" in shift)
    return "unknown"


def _name(intent: bool, framing: bool) -> Novelty:
    if intent:
        return "new intents and framings" if framing else "new intents"
    return "new framings" if framing else "nothing new"
