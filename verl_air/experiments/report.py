"""Writes what an experiment found: ``results.json``, ``results.md``, charts, and ``records.jsonl``, a line a run."""

from __future__ import annotations

import json
from pathlib import Path

from verl_air.experiments.driver import Experiment
from verl_air.experiments.figures import study_figures, training_figure
from verl_air.experiments.findings import find, to_json
from verl_air.experiments.page import to_markdown
from verl_air.files import write_atomically

RECORDS = "records.jsonl"
_MORE = ("group_acc", "harmful_acc", "benign_acc")


def write_report(experiment: Experiment, folder: Path) -> list[Path]:
    """Write all files of what is finished so far; returns their paths. Charts of an earlier call are replaced."""
    studies = [find(experiment, study) for study in experiment.plan.studies]
    charts: dict[str, str] = {}
    by_study: dict[str, list[str]] = {}
    seen: set[str] = set()
    for found in studies:
        runs = {r["hash"] for by_seed in experiment.records(found.study).values() for r in by_seed.values()}
        # Of an unfinished study whose runs all stand in an earlier one there is nothing new to show.
        new, seen = runs - seen, seen | runs
        if not new and found.finished < found.planned:
            continue
        drawn = study_figures(experiment.plan, found, _MORE)
        drawn |= training_figure(experiment.plan, found, "air/open_reward/mean", "open reward in training (the proxy)")
        by_study[found.study.name] = list(drawn)
        charts |= drawn
    for stale in folder.glob("*.svg"):
        if stale.name not in charts:
            stale.unlink()
    written = [write_atomically(folder / name, svg) for name, svg in charts.items()]
    results = json.dumps(to_json(experiment, studies), separators=(",", ":"), allow_nan=False) + "\n"
    written.append(write_atomically(folder / "results.json", results))
    records = {
        record["hash"]: json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"
        for study in experiment.plan.studies
        for by_seed in experiment.records(study).values()
        for record in by_seed.values()
    }
    withdrawn = (record for record in experiment.published.values() if "withdrawn" in record)
    records |= {record["hash"]: json.dumps(record, separators=(",", ":")) + "\n" for record in withdrawn}
    written.append(write_atomically(folder / RECORDS, "".join(records[name] for name in sorted(records))))
    written.append(write_atomically(folder / "results.md", to_markdown(experiment, studies, by_study)))
    return written
