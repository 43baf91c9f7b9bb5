"""What a run left on disk, whole or not: metrics, stored rollouts and validations, the resolved recipe, versions.

Nothing is required: a run may have died, or store only rollouts. What is missing is None or empty; what is broken is
named in ``faults``. Rollouts are read when they are asked for, since those of a long run are gigabytes.
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from verl_air.errors import DataError
from verl_air.evaluation.records import JsonLines, ScoredRollout

Series = dict[int, float]
"""Values by training step; NaN where verl wrote null."""


@dataclass
class RunFolder:
    """A run.

    metrics: every series of ``metrics.jsonl`` by name.
    validations, rollouts: stored JSONL by step, in order. capability: of ``verl-air evaluate --capability``, likewise.
    config: the resolved recipe (``config.yaml``); record: ``run.json``. Empty if they are not there.
    faults: what could not be read, in words.
    """

    path: Path
    metrics: dict[str, Series] = field(default_factory=dict)
    validations: dict[int, Path] = field(default_factory=dict)
    rollouts: dict[int, Path] = field(default_factory=dict)
    capability: dict[int, Path] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().stem if self.path.is_file() else self.path.resolve().name

    def read(self, path: Path) -> tuple[list[ScoredRollout], bool]:
        """The rollouts of a stored file, and whether the file is whole; if not, a fault is noted.

        Raises:
            DataError: a column is missing.
        """
        lines = JsonLines(path)
        rollouts = [rollout for _, rollout in lines.rollouts()]
        self._note_broken(lines)
        return rollouts, not lines.broken

    def whole_validations(self, steps: Iterable[int] | None = None) -> Iterator[tuple[int, list[ScoredRollout]]]:
        """(step, rollouts), one at a time; one cut off in the middle is left out: its meta-groups lack prompts."""
        for step in self.validations if steps is None else steps:
            rollouts, whole = self.read(self.validations[step])
            if whole and rollouts:
                yield step, rollouts

    def last_validation(self) -> tuple[int, list[ScoredRollout]]:
        """The last validation that is whole, with its step.

        Raises:
            DataError: there is none.
        """
        for found in self.whole_validations(reversed(self.validations)):
            return found
        raise DataError(
            f"{self.path}: no stored validation. Runs store them if trainer.validation_data_dir is set; "
            "for a file of rollouts give the file itself."
        )

    def _note_broken(self, lines: JsonLines) -> None:
        if lines.broken:
            file, numbers = lines.path, ", ".join(map(str, lines.broken[:5]))
            fault = f"{file.name} of {file.parent.name}: line {numbers} is not JSON (did the run stop there?)"
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

    def _read_mapping(self, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
        file = next((f for f in (self.path / "checkpoints" / name, self.path / name) if f.is_file()), None)
        if file is None:
            return {}
        try:
            value = parse(file.read_text(encoding="utf-8", errors="replace"))
        except (ValueError, yaml.YAMLError):
            value = None
        if isinstance(value, dict):
            return value
        self.faults.append(f"{name}: cannot be read")
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
        run.capability = _by_step(path / "capability")
        run.config = run._read_mapping("config.yaml", yaml.safe_load)
        run.record = run._read_mapping("run.json", json.loads)
        loose = _by_step(path)
    else:
        loose = {int(path.stem) if path.stem.isdigit() else 0: JsonLines(path).path}
    for step, file in loose.items():
        first = next((row for _, row in JsonLines(file)), {})
        (run.rollouts if first.get("split") == "train" else run.validations)[step] = file
    return run


def _by_step(folder: Path) -> dict[int, Path]:
    """Files named by their step, in order of steps."""
    files = {int(file.stem): file for file in folder.glob("*.jsonl") if file.stem.isdigit()}
    return dict(sorted(files.items()))
