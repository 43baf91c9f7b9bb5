"""The report as JSON, for programs, and as Markdown, for an issue or a README."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from verl_air.evaluation.report.headline import headline, sentences
from verl_air.evaluation.report.run_summary import Report
from verl_air.evaluation.text_table import interval, markdown_table, p_value, percent, points
from verl_air.evaluation.untrusted import in_markdown, visible


def to_json(report: Report) -> dict[str, Any]:
    """All numbers of the page, samples left out; null where a number is not known."""
    runs = [{name: value for name, value in asdict(run).items() if name != "recipe"} for run in report.runs]
    against = {name: [asdict(c) for c in pairs] for name, pairs in report.against_first.items()}
    return {"runs": _plain(runs), "against_first": _plain(against)}


def to_markdown(report: Report) -> str:
    """Headline, alarms and settings."""
    lines = ["# Run report", ""]
    lines += [f"- {in_markdown(sentence)}" for _, sentence in sentences(report)] + [""]
    names = ["domain/split", "run", "step", "intents", "group accuracy", "accuracy", "harmful", "benign", "consistent"]
    table = [names]
    for source, rows in headline(report).items():
        for row in rows:
            numbers = [row.groups, row.prompts, row.harmful, row.benign]
            cells = [source, row.run, str(row.step), str(row.intents or "-"), *map(interval, numbers)]
            table.append([*map(in_markdown, cells), percent(row.consistent.value)])
    lines += markdown_table(table) if len(table) > 1 else ["No validation is stored."]
    lines += ["", "Intervals: 95 %. Group accuracy: Wilson over intents; accuracy: bootstrap over intents.", ""]
    for name, pairs in report.against_first.items():
        for c in pairs:
            lines.append(
                f"- {in_markdown(name)} against {in_markdown(report.runs[0].name)}, {in_markdown(c.name)}: "
                f"group accuracy {points(c.groups)}, accuracy {points(c.prompts)}, "
                f"{c.intents} intents, {c.test} {p_value(c.p)}"
            )
    lines += ["", "## Alarms", ""]
    alarms = [(run.name, alarm) for run in report.runs for alarm in run.alarms if alarm.text]
    lines += [
        f"- {in_markdown(name)}, {alarm.check} ({alarm.level}): {in_markdown(alarm.text)}" for name, alarm in alarms
    ]
    lines += [f"- {in_markdown(run.name)}: {in_markdown(fault)}" for run in report.runs for fault in run.faults]
    return "\n".join([*lines, "" if alarms else "None."]) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return visible(value, limit=None)
    if isinstance(value, dict):
        return {visible(str(name), limit=None): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
