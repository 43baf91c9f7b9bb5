"""The report as one HTML file, as JSON for programs, and as Markdown for an issue or a README."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from verl_air import __version__
from verl_air.evaluation.breakdown import Section
from verl_air.evaluation.comparison import Comparison
from verl_air.evaluation.metrics import ALL_DOMAINS
from verl_air.evaluation.report import charts
from verl_air.evaluation.report.alarms import alarms_of
from verl_air.evaluation.report.settings import shown_settings, versions, whole_recipe
from verl_air.evaluation.report.summary import RunReport
from verl_air.evaluation.report.svg import render_template
from verl_air.evaluation.seeds import curves_from, paper_table
from verl_air.evaluation.statistics import NOTHING
from verl_air.evaluation.tables import (
    SECTION_HEAD,
    difference_table,
    in_markdown,
    interval_or_value,
    markdown_table,
    p_value,
    percent,
    points,
    section_rows,
    seed_table,
    visible,
)
from verl_air.files import write_atomically

_FEW = 3
"""Runs that are still compared in sentences; more are read off the table."""


def write_page(report: RunReport, out: str | os.PathLike[str]) -> Path:
    """Render and write; the file is replaced as a whole."""
    return write_atomically(out, render(report))


def render(report: RunReport) -> str:
    """The HTML; the templates escape everything."""
    return render_template(
        "page.html.jinja",
        report=report,
        runs=report.runs,
        single=len(report.runs) == 1,
        alarms={run.name: alarms_of(run) for run in report.runs},
        sentences=sentences(report),
        seed_tables=seed_tables_as_text(report),
        capability=capability_table(report),
        named=_named,
        verdict=verdict,
        curves=charts.learning_curves(report),
        everything={run.name: [row for section in run.last for row in section_rows(section)] for run in report.runs},
        section_head=SECTION_HEAD,
        groups=charts.group_accuracy_curves(report),
        hacking=charts.hacking(report),
        heat=charts.heat_maps(report),
        settings=[shown_settings(run.folder.config) for run in report.runs],
        versions=[versions(run.folder.record) for run in report.runs],
        recipes={run.name: whole_recipe(run.folder.config) for run in report.runs if run.folder.config},
        version=__version__,
    )


def to_json(report: RunReport) -> dict[str, Any]:
    """All numbers of the page, samples left out; null where a number is not known."""
    runs = [
        {
            "name": run.name,
            "path": str(run.folder.path),
            "steps": run.steps,
            "planned": run.planned,
            "first_step": run.first_step,
            "last_step": run.last_step,
            "curves": run.curves,
            "validations": curves_from(run.validations),
            "last": [*map(asdict, run.last)],
            "change": [*map(asdict, run.change)],
            "capability": [*map(asdict, run.capability)],
            "alarms": [*map(asdict, alarms_of(run))],
            "settings": shown_settings(run.folder.config),
            "versions": versions(run.folder.record),
            "faults": run.folder.faults,
        }
        for run in report.runs
    ]
    against = {name: [asdict(c) for c in pairs] for name, pairs in report.against_first.items()}
    seeds = asdict(report.seeds) if report.seeds else None
    return _plain({"runs": runs, "against_first": against, "seeds": seeds})


def to_markdown(report: RunReport) -> str:
    """What to take away, tables and alarms."""
    lines = ["# Run report", "", *(f"- {in_markdown(sentence)}" for _, sentence in sentences(report)), ""]
    for title, table in [*seed_tables_as_text(report), *_accuracy_tables(report)]:
        lines += [f"{title}:", "", *markdown_table([[*map(in_markdown, row)] for row in table]), ""]
    if not report.sources:
        lines += ["No validation is stored.", ""]
    alarms = [f"{run.name}, {a.check} ({a.level}): {a.text}" for run in report.runs for a in alarms_of(run) if a.text]
    faults = [f"{run.name}: {fault}" for run in report.runs for fault in run.folder.faults]
    lines += ["## Alarms", "", *(f"- {in_markdown(text)}" for text in alarms + faults or ["None."])]
    return "\n".join(lines) + "\n"


_COLUMNS = ("domain/split", "run", "step", "intents", "incomplete", "group accuracy", "accuracy", "harmful", "benign",
            "consistent")  # fmt: skip


def _accuracy_tables(report: RunReport) -> list[tuple[str, list[list[str]]]]:
    """Titles and tables: the last validations, their differences, and general benchmarks; none that are empty."""
    first = report.runs[0]
    accuracy, change = [[*_COLUMNS]], [["domain/split", "run", "intents", "group accuracy", "p", "accuracy"]]
    for source in report.sources:
        for run in report.runs:
            if (section := _named(run.last, source)) is not None:
                whole, harms = section.whole, [section.line("harm", name) for name in ("harmful", "benign")]
                numbers = [whole.groups, whole.prompts, *(harm.prompts if harm else NOTHING for harm in harms)]
                counts = [str(run.last_step), str(whole.intents), str(whole.incomplete)]
                shown = [*map(interval_or_value, numbers), percent(whole.consistent.value)]
                accuracy.append([source, run.name, *counts, *shown])
            changes = run.change if len(report.runs) == 1 else report.against_first.get(run.name, [])
            if (c := _named(changes, source)) is not None:
                p = p_value(c.p).removeprefix("p = ")
                change.append([source, run.name, str(c.intents), points(c.groups), p, points(c.prompts)])
    than = f"step {first.first_step}" if len(report.runs) == 1 else first.name
    tables = {
        "Last validation, with 95 % intervals (group accuracy: Wilson over intents, else bootstrap)": accuracy,
        f"Compared with {in_markdown(than)} on the same intents": change,
        "General benchmarks, before and after": capability_table(report),
    }
    return [(title, table) for title, table in tables.items() if len(table) > 1]


def sentences(report: RunReport) -> list[tuple[str, str]]:
    """What a reader in a hurry should take away: (verdict, sentence) on group accuracy in each domain and split, and on
    general benchmarks.
    """
    found = []
    if report.seeds is not None:
        for d in report.seeds.differences:
            if d.metric == "group_acc":
                p = "" if d.p_end is None else f", {p_value(d.p_end)}"
                text = f"group accuracy of {d.method} minus {d.against}: {points(d.end)} over {d.seeds} paired seeds{p}"
                found.append((verdict(d.end.value, d.p_end), f"{d.source}: {text}"))
    else:
        first, *others = report.runs
        compared = [(c, f"at step {first.first_step}", f"at step {first.last_step}") for c in first.change]
        if others:
            pairs = report.against_first.items() if len(report.runs) <= _FEW else ()
            compared = [(c, f"in {first.name}", f"in {name}") for name, changes in pairs for c in changes]
        pooled = [item for item in compared if item[0].domain == ALL_DOMAINS]
        found += [_change(*item, "group accuracy", "intents") for item in pooled or compared]
    for run in report.runs if len(report.runs) <= _FEW else ():
        of_run = "" if len(report.runs) == 1 else f" of {run.name}"
        before, after = (f"at step {of(run.folder.capability, default=0)}" for of in (min, max))
        found += [_change(c, before, after, f"accuracy{of_run}", "questions") for c in run.capability]
    return [(word, f"{text}: {word}.") for word, text in found]


def _change(c: Comparison, a: str, b: str, what: str, unit: str) -> tuple[str, str]:
    sides = f"{percent(c.groups_a)} {a}, {percent(c.groups_b)} {b}"
    text = f"{c.name}: {what} {sides} ({points(c.groups)} on the same {c.intents} {unit}, {p_value(c.p)})"
    return verdict(c.groups.value, c.p), text


def verdict(difference: float | None, p: float | None) -> str:
    """``better``, ``worse`` or ``no clear difference``, at 5 %."""
    if p is None or p >= 0.05:
        return "no clear difference"
    return "better" if (difference or 0.0) > 0 else "worse"


def capability_table(report: RunReport) -> list[list[str]]:
    """General benchmarks before and after training, with a head; empty if there are none."""
    table = [["run", "benchmark", "questions", "before", "after", "change in accuracy", "p"]]
    for run in report.runs:
        before, after = (f" (step {of(run.folder.capability, default=0)})" for of in (min, max))
        for c in run.capability:
            questions = f"{c.intents} ({c.incomplete} incomplete)" if c.incomplete else str(c.intents)
            sides = [percent(c.groups_a) + before, percent(c.groups_b) + after]
            table.append([run.name, c.domain, questions, *sides, points(c.groups), p_value(c.p).removeprefix("p = ")])
    return table if len(table) > 1 else []


def seed_tables_as_text(report: RunReport) -> list[tuple[str, list[list[str]]]]:
    """Tables over seeds with their titles, the paper's first; none without several runs of one name."""
    if (seeds := report.seeds) is None:
        return []
    metric = "group_acc" if any(row.metric == "group_acc" for row in seeds.rows) else "acc"
    differences = [d for d in seeds.differences if d.metric == metric]
    tables = [
        ("Accuracy / group accuracy at the end point, mean over seeds", paper_table(seeds.rows, interval_or_value)),
        (
            "Over the steps: mean height of the curve",
            seed_table(row for row in seeds.rows if row.metric == metric),
        ),
        (f"Compared with {seeds.methods[0]} on the same seeds", difference_table(differences)),
    ]
    return tables if differences else tables[:2]


_N = TypeVar("_N", Section, Comparison)


def _named(items: Iterable[_N], name: str) -> _N | None:
    return next((item for item in items if item.name == name), None)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return visible(value, limit=None)
    if isinstance(value, dict):
        return {visible(str(name), limit=None): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
