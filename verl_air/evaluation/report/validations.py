"""The stored validations of a run, read one at a time: a few numbers of each, the records of the first and last."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from verl_air.evaluation.accuracy import accuracy_of
from verl_air.evaluation.intervals import Estimate, share_of
from verl_air.evaluation.meta_groups import meta_groups
from verl_air.evaluation.records import Record
from verl_air.evaluation.run_folder import RunFolder, Series

ANCHORS = "anchors"
"""Stands among the framing families for the anchor rows."""


@dataclass
class Validations:
    """groups, framings, open_accuracy: as in ``RunSummary``."""

    first: list[Record]
    last: list[Record]
    first_step: int | None
    last_step: int | None
    groups: dict[str, dict[int, Estimate]]
    framings: dict[str, dict[str, Series]]
    open_accuracy: dict[str, Series]

    @classmethod
    def read(cls, folder: RunFolder) -> Validations:
        """Those that are whole; a fault is noted for the others."""
        found = cls([], [], None, None, defaultdict(dict), defaultdict(lambda: defaultdict(dict)), defaultdict(dict))
        for step in sorted(folder.validations):
            for records in folder.whole_validations([step]).values():
                found._add(step, records)
        return found

    def _add(self, step: int, records: list[Record]) -> None:
        if self.first_step is None:
            self.first_step, self.first = step, records
        self.last_step, self.last = step, records
        by_source: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_source["/".join(filter(None, (record.domain, record.split)))].append(record)
        for source, rows in by_source.items():
            whole = [group.all_right for group in meta_groups(rows) if group.whole]
            self.groups[source][step] = share_of(np.array(whole))
            self.open_accuracy[source][step] = _prompts([row for row in rows if row.role == "open"])
            by_family: dict[str, list[Record]] = defaultdict(list)
            for row in rows:
                by_family[ANCHORS if row.role == "anchor" else row.family].append(row)
            for family, of_family in by_family.items():
                self.framings[source][family][step] = _prompts(of_family)


def _prompts(records: list[Record]) -> float:
    accuracy = accuracy_of(records).prompts
    return math.nan if accuracy is None else accuracy
