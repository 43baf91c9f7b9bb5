"""``verl-air check``: is a set of data files fit to train and evaluate on?

Two passes. The first reads the short columns as numbers (:mod:`~verl_air.data.check.columns`) and checks structure and
leaks; the second streams prompts, ground truths and extras. In memory are a few numbers a row and a request an intent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from verl_air.data.check.columns import Columns, read_columns
from verl_air.data.check.contents import Contents
from verl_air.data.check.findings import FileSummary, Finding, Report
from verl_air.data.check.gold import DEFAULT_VERIFIERS, GoldCheck
from verl_air.data.check.lengths import PromptLengths
from verl_air.data.check.structure import check_structure, summarise
from verl_air.data.near_duplicates import near_duplicates
from verl_air.errors import DataError

__all__ = ["CheckOptions", "FileSummary", "Finding", "Report", "check_files"]


@dataclass(frozen=True)
class CheckOptions:
    """What to hold the files to.

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
    max_prompt_length: int = 1024
    limit: int = 20


def check_files(paths: Sequence[str | os.PathLike[str]], options: CheckOptions | None = None) -> Report:
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
    report = Report(limit=options.limit)
    columns = read_columns(files)
    report.files = summarise(columns)
    for name, summary in report.files.items():
        if not summary.rows:
            report.add(Finding("error", "values", name, -1, "file", "has no rows"))
    report.add(check_structure(columns, options.anchors, options.open_))
    lengths = PromptLengths(options.tokenizer, options.max_prompt_length) if options.tokenizer else None
    contents = Contents(columns, GoldCheck({**DEFAULT_VERIFIERS, **options.verifiers}), lengths)
    report.add(contents.check())
    report.add(_near_duplicates(columns, contents.requests))
    if lengths is not None:
        longest = f"the longest of them has {lengths.longest}" if lengths.tokenised else "none is near the limit"
        report.notes.append(
            f"prompt lengths: {lengths.tokenised} prompts could exceed {lengths.limit} tokens by their bytes; {longest}"
        )
    return report


def _near_duplicates(columns: Columns, requests: Sequence[str | None]) -> Iterator[Finding]:
    """Held-out intents that are worded almost like a training intent; reported at their first row."""
    split_S, intent_S = columns.code_S["split"], columns.code_S["intent_id"]
    train = columns.values["split"].index("train") if "train" in columns.values["split"] else None
    intents, first = np.unique(intent_S, return_index=True)
    known = [(z, row) for z, row in zip(intents.tolist(), first.tolist(), strict=True) if z >= 0 and requests[z]]
    side_Z = np.array([split_S[row] == train for _, row in known], dtype=bool)
    if not side_Z.any() or side_Z.all():
        return
    reported: set[int] = set()
    for i, j, similarity in near_duplicates([requests[z] or "" for z, _ in known], side_Z):
        held, trained = (j, i) if side_Z[i] else (i, j)
        if held in reported:
            continue
        reported.add(held)
        other = columns.value("intent_id", known[trained][1])
        message = f"its request shares {similarity:.0%} of its words with that of the training intent {other!r}"
        yield columns.finding("near-duplicate", known[held][1], "extra_info.intent_id", message, "warning")
