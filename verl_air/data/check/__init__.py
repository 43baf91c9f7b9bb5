"""``verl-air check``: is a set of data files fit to train and evaluate on?

Two passes. The first reads the short columns into a table and checks structure and leaks; the second streams prompts,
ground truths and extras. In memory are a few numbers per row and a request per intent.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from verl_air.data.check.contents import ContentCheck, PromptLengths
from verl_air.data.check.gold import DEFAULT_VERIFIERS, GoldCheck
from verl_air.data.check.structure import (
    FileSummary,
    Finding,
    Severity,
    check_structure,
    findings_at,
    read_short_columns,
    summarise,
)
from verl_air.data.contrast import contrast_warnings
from verl_air.data.near_duplicates import near_duplicates
from verl_air.errors import DataError

__all__ = ["CheckOptions", "CheckReport", "FileSummary", "Finding", "check_files"]


@dataclass(frozen=True)
class CheckOptions:
    """What is required of the files.

    anchors, open_: rows that a visit to an intent takes.
    verifiers: names of reward functions, ``<domain>/<role>`` -> name, for rows that name none; added to the defaults.
    tokenizer: folder or hub name; without it prompt lengths are not checked.
    max_prompt_length: tokens.
    limit: how many findings of one kind are listed.
    """

    anchors: int = 1
    open_: int = 3
    verifiers: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    max_prompt_length: int = 2048
    limit: int = 20


@dataclass
class CheckReport:
    """The result of a check. limit: how many findings of one check are kept; ``counts`` has them all."""

    limit: int = 20
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[Severity, str]] = field(default_factory=Counter)
    files: dict[str, FileSummary] = field(default_factory=dict)

    def add(self, findings: Iterable[Finding]) -> None:
        """Count findings, and keep those within the limit."""
        for finding in findings:
            key = (finding.severity, finding.check)
            self.counts[key] += 1
            if self.counts[key] <= self.limit:
                self.findings.append(finding)

    def number(self, severity: Severity) -> int:
        """How many findings of a severity, listed or not."""
        return sum(n for (kind, _), n in self.counts.items() if kind == severity)

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings do not count."""
        return self.number("error") == 0


def check_files(paths: Sequence[str | os.PathLike[str]], options: CheckOptions | None = None) -> CheckReport:
    """Check files that are used together: all that a training run and its validation read.

    Raises:
        DataError: a file cannot be read, or lacks a column, or the tokenizer cannot be loaded.
    """
    options = options or CheckOptions()
    files = [Path(path) for path in paths]
    if not files:
        raise DataError("no file to check")
    if len({path.resolve() for path in files}) < len(files):
        raise DataError("a file is given twice")
    report = CheckReport(limit=options.limit)
    rows = read_short_columns(files)
    report.files = summarise(rows)
    empty = [name for name, summary in report.files.items() if not summary.rows]
    report.add(Finding("error", "values", name, -1, "file", "has no rows") for name in empty)
    report.add(check_structure(rows, options.anchors, options.open_))
    lengths = PromptLengths(options.tokenizer, options.max_prompt_length) if options.tokenizer else None
    contents = ContentCheck(rows, GoldCheck({**DEFAULT_VERIFIERS, **options.verifiers}), lengths)
    report.add(contents.check(files))
    report.add(_contrast(rows, contents.requests, contents.harmful))
    report.add(_near_duplicates(rows, contents.requests))
    return report


def _contrast(rows: pd.DataFrame, requests: Mapping[int, str], harmful: Mapping[int, bool]) -> Iterator[Finding]:
    """Files whose harmful and benign intents are easily told apart, or with few benign ones."""
    known = rows[rows["intent"].isin(harmful.keys())].drop_duplicates(["file", "intent"])
    for file, intents in known.groupby("file", observed=True)["intent"]:
        kinds = ([requests[z] for z in intents if harmful[z] is kind] for kind in (True, False))
        for warning in contrast_warnings(*kinds):
            yield Finding("warning", "contrast", str(file), -1, "extra_info.extras.harmful", warning)


def _near_duplicates(rows: pd.DataFrame, requests: Mapping[int, str]) -> Iterator[Finding]:
    """Held-out intents that are worded almost like a training intent; reported at their first row."""
    intents = rows[rows["intent"].isin(requests.keys())].drop_duplicates("intent")
    side_Z = (intents["split"] == "train").to_numpy()
    if side_Z.all() or not side_Z.any():
        return
    warnings: list[str] = []
    nearest: dict[int, tuple[int, float]] = {}  # to each held-out intent
    for i, j, similarity in near_duplicates([requests[z] for z in intents["intent"]], side_Z, warnings=warnings):
        held, trained = (j, i) if side_Z[i] else (i, j)
        nearest.setdefault(held, (trained, similarity))
    for warning in warnings:
        yield Finding("warning", "near-duplicate", "all files", -1, "extra_info.extras.request", warning)
    names = intents["intent_id"].iloc[[trained for trained, _ in nearest.values()]]
    messages = (
        f"its request shares {similarity:.0%} of its words with that of the training intent {name!r}"
        for name, (_, similarity) in zip(names, nearest.values(), strict=True)
    )
    where = intents.iloc[list(nearest)]
    yield from findings_at(where, "near-duplicate", "extra_info.intent_id", messages, severity="warning")
