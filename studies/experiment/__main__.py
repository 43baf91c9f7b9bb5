"""Do the runs of a plan that are not done yet, then write the results alongside it: ``python -m studies.experiment``.

An archived plan is not run; its results are written from its records alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from studies.experiment.driver import Experiment
from studies.experiment.plan import Study, read_plan
from studies.experiment.power import power_of
from studies.experiment.report import write_report
from verl_air.errors import AirError


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m studies.experiment", description=__doc__)
    add = parser.add_argument
    add("plan", nargs="?", type=Path, default=Path(__file__).with_name("plan.yaml"), help="(default: this folder's)")
    add("--out", type=Path, metavar="DIR", help="folder of the runs (default: runs/ and the name of the plan's folder)")
    add("--only", nargs="+", metavar="STUDY", help="only these studies, in this order")
    add("--list", action="store_true", help="print what would be run and how long it takes; run nothing")
    add("--report", action="store_true", help="write the results of what is finished; run nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if a run failed for good, 130 if it was stopped, 2 on a mistake in the plan."""
    args = make_parser().parse_args(argv)
    try:
        return _run(args)
    except AirError as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nexperiment: stopped; the same command resumes here", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    plan = read_plan(args.plan)
    out = args.out or Path("runs") / args.plan.resolve().parent.name
    experiment = Experiment(plan, out, say=lambda text: print(text, flush=True))
    studies = [plan.study(name) for name in args.only or ()] or list(plan.studies)
    if plan.archived:
        print(f"archived, nothing is run: {plan.archived}")
    if args.list:
        _list(experiment, studies)
        return 0
    failed = 0 if args.report or plan.archived else experiment.run(studies)
    for path in write_report(experiment):
        print(path)
    return 1 if failed else 0


def _list(experiment: Experiment, studies: Sequence[Study]) -> None:
    """Each study with its runs, and those that are missing and in no study above."""
    seen: set[tuple[str, int]] = set()
    for study in studies:
        asked = {(method, seed) for method in study.methods for seed in study.seeds}
        done = {(method, seed) for method, by_seed in experiment.records(study).items() for seed in by_seed}
        new = asked - done - seen
        seen |= new
        hours = experiment.hours(len(new))
        print(f"{study.name:<16}{len(asked):>4} runs, {len(new):>3} missing{hours:>7.1f} h  {study.title}")
        if study.against and experiment.plan.aa_spread and len(study.seeds) > 1:
            print(f"{'':<16}{power_of(experiment.plan.aa_spread, len(study.seeds))}")
    print(f"{'':<16}{len(seen):>13} missing in all{experiment.hours(len(seen)):>7.1f} h")


if __name__ == "__main__":
    raise SystemExit(main())
