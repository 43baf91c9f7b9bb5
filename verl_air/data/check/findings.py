"""What a check found: faults with their file, row and column, counted in full and listed up to a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One fault. row: position in the file from 0; -1 if it concerns the file as a whole."""

    severity: Severity
    check: str
    file: str
    row: int
    column: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.row < 0 else f"{self.file}, row {self.row}"
        return f"{self.severity}: {place}, {self.column}: {self.message} [{self.check}]"


@dataclass
class FileSummary:
    """What stands in a file."""

    rows: int
    intents: int
    anchors: int
    open: int
    splits: tuple[str, ...]
    domains: tuple[str, ...]


@dataclass
class Report:
    """The result of a check.

    limit: how many findings of one check are kept; ``counts`` has them all.
    notes: measured facts that are no faults.
    """

    limit: int = 20
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[Severity, str]] = field(default_factory=Counter)
    files: dict[str, FileSummary] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, found: Iterable[Finding] | Finding) -> None:
        """Count findings, and keep those within the limit."""
        for finding in [found] if isinstance(found, Finding) else found:
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
