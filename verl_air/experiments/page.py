"""What an experiment found, as a Markdown page: tables and charts, without a word of interpretation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from verl_air.evaluation.seeds import SeedDifference, SeedRow
from verl_air.evaluation.tables import interval_or_value, markdown_table, p_value, percent, plain, points
from verl_air.experiments.driver import Experiment
from verl_air.experiments.findings import StudyFindings
from verl_air.experiments.plan import Plan

_METRICS = {
    "group_acc": "group accuracy",
    "acc": "accuracy",
    "anchor_acc": "anchors",
    "harmful_acc": "harmful, open",
    "benign_acc": "benign, open",
}


def to_markdown(experiment: Experiment, studies: Sequence[StudyFindings], figures: dict[str, list[str]]) -> str:
    """The page.

    Args:
        experiment: whose it is.
        studies: what was found.
        figures: file names by study; one that is not named there is mentioned, and its tables are left out.
    """
    plan = experiment.plan
    lines = [
        "# Results",
        "",
        f"Made by `python -m verl_air.experiments {plan.path.as_posix()}`; the numbers are in "
        "[`results.json`](results.json). "
        "This file is written anew each time.",
        "",
        *_how_it_was_run(experiment, studies),
        "",
        "In brackets: 95 % intervals over seeds (Student's t). Each seed is a world of its own. Nothing is corrected "
        "for looking at many lines: of twenty differences without cause one has p < 0.05.",
        "",
    ]
    for found in studies:
        lines += _study(plan, found, figures.get(found.study.name), experiment.withdrawn(found.study))
    return "\n".join(lines).rstrip() + "\n"


def _how_it_was_run(experiment: Experiment, studies: Sequence[StudyFindings]) -> list[str]:
    records = {
        record["hash"]: record
        for found in studies
        for by_seed in experiment.records(found.study).values()
        for record in by_seed.values()
    }
    planned = sum(found.planned for found in studies)
    done = sum(found.finished for found in studies)
    crashed = sum(record["attempts"] - 1 for record in records.values())
    hours = sum(record["seconds"] or 0 for record in records.values()) / 3600
    commits = sorted({(record["git"] or {}).get("commit", "unknown") for record in records.values()})
    modified = any((record["git"] or {}).get("modified") for record in records.values())
    return [
        f"{len(records)} runs ({done} of {planned} that the studies ask for; some share runs), {hours:.1f} hours; "
        f"{crashed} attempt(s) crashed or were stopped and were repeated. "
        f"Commit {', '.join(commits) or 'unknown'}{' with changes' if modified else ''}."
    ]


def _study(plan: Plan, found: StudyFindings, figures: Sequence[str] | None, withdrawn: Mapping[str, str]) -> list[str]:
    study = found.study
    lines = [f"## {study.title or study.name}", "", study.question.strip(), ""]
    for method, reason in withdrawn.items():
        lines += [f"**Withdrawn: {plan.methods[method].title}** ({reason}).", ""]
    if found.finished < found.planned:
        lines += [f"**Unfinished: {found.finished} of {found.planned} runs.**", ""]
    if figures is None:
        return lines
    if found.chosen:
        chosen, scores = found.chosen
        means = ", ".join(f"{plan.methods[m].title} {percent(sum(v) / len(v))}" for m, v in scores.items())
        lines += [f"Chosen: {plan.methods[chosen].title} ({means}).", ""]
    for source in plan.measure.sources:
        rows = [row for row in found.rows if row.source == source]
        if rows:
            lines += [f"### {source}, step {plan.measure.steps[-1]}", "", *_end_points(plan, found, source), ""]
            lines += [*_ways(plan, rows, source), ""]
        against = [d for d in found.differences if d.source == source and d.metric in ("group_acc", "acc")]
        if against:
            lines += [*_differences(plan, against), ""]
    lines += [f"![{name.removesuffix('.svg')}]({name})" for name in figures]
    return [*lines, ""]


def _end_points(plan: Plan, found: StudyFindings, source: str) -> list[str]:
    """A line a method, a column a metric; the start first."""
    table = [["method", "seeds", *_METRICS.values()]]
    starts = [by_source[source] for by_source in found.start.values() if source in by_source]
    if starts:
        means = [[values[metric] for values in starts if metric in values] for metric in _METRICS]
        table.append(["before training", str(len(starts)), *(percent(sum(v) / len(v)) if v else "-" for v in means)])
    for method in found.curves:
        rows = [found.row(method, source, metric) for metric in _METRICS]
        seeds = next((row.seeds for row in rows if row), 0)
        table.append(
            [plan.methods[method].title, str(seeds), *(interval_or_value(row.end) if row else "-" for row in rows)]
        )
    return markdown_table(table)


def _ways(plan: Plan, rows: Sequence[SeedRow], source: str) -> list[str]:
    """How group accuracy got there: the area, and the steps to the threshold."""
    threshold = plan.measure.thresholds[source]
    first, last = plan.measure.steps[0], plan.measure.steps[-1]
    table = [
        [
            "method",
            f"group accuracy, mean over steps {first} to {last}",
            f"steps to {percent(threshold, 0)} (a run that never gets there counts as {last})",
            "runs that got there",
        ]
    ]
    for row in rows:
        if row.metric == "group_acc":
            steps = plain(row.steps)
            table.append(
                [plan.methods[row.method].title, interval_or_value(row.area), steps, f"{row.reached} of {row.seeds}"]
            )
    return markdown_table(table)


def _differences(plan: Plan, differences: Sequence[SeedDifference]) -> list[str]:
    table = [["paired by seed", "seeds", "metric", "end point", "p", "mean over steps", "p", "ahead at the end"]]
    for d in differences:
        table.append(
            [
                f"{plan.methods[d.method].title} minus {plan.methods[d.against].title}",
                str(d.seeds),
                _METRICS[d.metric],
                points(d.end),
                "-" if d.p_end is None else p_value(d.p_end).removeprefix("p = "),
                points(d.area),
                "-" if d.p_area is None else p_value(d.p_area).removeprefix("p = "),
                f"{d.ahead} of {d.seeds}",
            ]
        )
    return markdown_table(table)
