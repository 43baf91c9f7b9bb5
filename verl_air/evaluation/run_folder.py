"""What a run left on disk, whole or not: metrics, stored rollouts and validations, the resolved recipe, versions.

Nothing here insists: a run may have died, or store only rollouts. What is missing is None or empty; what is broken is
named in ``faults``. Files are read when they are asked for, since the rollouts of a long run are gigabytes.
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from verl_air.errors import DataError
from verl_air.evaluation.jsonl import JsonLines, open_jsonl
from verl_air.evaluation.novelty import Met
from verl_air.evaluation.records import Record, records_of

Series = dict[int, float]
"""Values by training step; NaN where verl wrote null."""


@dataclass
class RunFolder:
    """A run.

    metrics: every series of ``metrics.jsonl`` by name.
    validations, rollouts: stored JSONL by step.
    config: the resolved recipe (``config.yaml``); record: ``run.json``. Empty if they are not there.
    faults: what could not be read, in words.
    """

    path: Path
    metrics: dict[str, Series] = field(default_factory=dict)
    validations: dict[int, Path] = field(default_factory=dict)
    rollouts: dict[int, Path] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().stem if self.path.is_file() else self.path.resolve().name

    @property
    def empty(self) -> bool:
        """Whether there is nothing to report yet."""
        return not (self.metrics or self.validations or self.rollouts)

    def records(self, path: Path) -> tuple[list[Record], bool]:
        """The records of a stored file, and whether the file is whole; if not, a fault is noted.

        Raises:
            DataError: a column is missing.
        """
        lines = JsonLines(path)
        records = list(records_of(lines))
        self._note_broken(lines)
        return records, not lines.broken

    def whole_validations(self, steps: list[int] | None = None) -> dict[int, list[Record]]:
        """Records by step. A validation cut off in the middle is left out: its meta-groups lack prompts."""
        found = {}
        for step in sorted(self.validations) if steps is None else steps:
            records, whole = self.records(self.validations[step])
            if whole and records:
                found[step] = records
        return found

    def last_validation(self) -> tuple[int, list[Record]]:
        """The last validation that is whole, with its step.

        Raises:
            DataError: there is none.
        """
        for step in sorted(self.validations, reverse=True):
            if found := self.whole_validations([step]):
                return step, found[step]
        raise DataError(
            f"{self.path}: no stored validation. Runs store them if trainer.validation_data_dir is set; "
            "for a file of rollouts give the file itself."
        )

    def met(self, records: list[Record]) -> Met | None:
        """What training met: from the recipe's training files if they are still there, else from stored rollouts.

        None if nothing tells, or if nothing needs to be told because all of ``records`` say themselves what is new.
        """
        if all("shift" in record.extras for record in records):
            return None
        files = (self.config.get("data") or {}).get("train_files") or []
        files = [files] if isinstance(files, str) else list(files)
        if files and all(Path(file).is_file() for file in files):
            return Met.from_files(files)
        if not self.rollouts:
            return None
        return Met.from_records(record for path in self.rollouts.values() for record in self.records(path)[0])

    def _note_broken(self, lines: JsonLines) -> None:
        if lines.broken:
            numbers = ", ".join(map(str, lines.broken[:5]))
            fault = (
                f"{lines.path.name} of {lines.path.parent.name}: line {numbers} is no JSON (did the run stop there?)"
            )
            if fault not in self.faults:
                self.faults.append(fault)

    def _read_metrics(self, path: Path) -> None:
        metrics: dict[str, Series] = defaultdict(dict)
        lines = JsonLines(path)
        for where, row in lines:
            step, data = row.get("step"), row.get("data")
            if not isinstance(step, int) or not isinstance(data, dict):
                raise DataError(f"{where}: no step and data; was this written by verl's file logger?")
            for name, value in data.items():
                if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                    metrics[name][step] = math.nan if value is None else float(value)
        self._note_broken(lines)
        self.metrics = dict(metrics)

    def _read_settings(self, folder: Path) -> None:
        for file in (folder / "checkpoints" / "config.yaml", folder / "config.yaml"):
            if file.is_file():
                self.config = self._mapping(file, yaml.safe_load)
                break
        for file in (folder / "checkpoints" / "run.json", folder / "run.json"):
            if file.is_file():
                self.record = self._mapping(file, json.loads)
                break

    def _mapping(self, file: Path, parse: Any) -> dict[str, Any]:
        try:
            value = parse(file.read_text(encoding="utf-8", errors="replace"))
        except (ValueError, yaml.YAMLError):
            value = None
        if isinstance(value, dict):
            return value
        self.faults.append(f"{file.name}: cannot be read")
        return {}


def read_run_folder(path: str | os.PathLike[str]) -> RunFolder:
    """Read a run's folder, a folder of STEP.jsonl files, or one JSONL file of rollouts.

    Raises:
        DataError: the path is not there, or ``metrics.jsonl`` is something else.
    """
    path = Path(path)
    run = RunFolder(path)
    if path.is_dir():
        if (path / "metrics.jsonl").is_file():
            run._read_metrics(path / "metrics.jsonl")
        run.validations, run.rollouts = _by_step(path / "validation"), _by_step(path / "rollouts")
        run._read_settings(path)
        loose = _by_step(path)
    else:
        open_jsonl(path)
        loose = {int(path.stem) if path.stem.isdigit() else 0: path}
    for step, file in loose.items():
        (run.rollouts if _is_training(file) else run.validations)[step] = file
    return run


def _by_step(folder: Path) -> dict[int, Path]:
    """Files named by their step, in order of steps."""
    files = {int(file.stem): file for file in folder.glob("*.jsonl") if file.stem.isdigit()}
    return dict(sorted(files.items()))


def _is_training(file: Path) -> bool:
    return next((row.get("split") == "train" for _, row in JsonLines(file)), False)
