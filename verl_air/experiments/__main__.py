"""Do what a plan asks for and is not done yet, then write the results: ``python -m verl_air.experiments``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from verl_air.errors import AirError
from verl_air.experiments.driver import Experiment, whole_length
from verl_air.experiments.plan import read_plan
from verl_air.experiments.report import RECORDS, write_report
from verl_air.experiments.runs import read_records


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if a run failed for good, 130 if it was stopped, 2 on a mistake in the plan."""
    parser = argparse.ArgumentParser(prog="python -m verl_air.experiments", description=__doc__)
    add = parser.add_argument
    add("plan", nargs="?", type=Path, default=Path("recipes/experiment/plan.yaml"), help="(default: %(default)s)")
    add("--out", type=Path, default=Path("runs/experiment"), metavar="DIR", help="the runs (default: %(default)s)")
    add("--docs", type=Path, default=Path("docs/experiment"), metavar="DIR", help="the results (default: %(default)s)")
    add("--recipes", type=Path, default=Path("recipes"), metavar="DIR", help="folder of recipes (default: %(default)s)")
    add("--only", nargs="+", metavar="STUDY", help="only these studies, in this order")
    add("--methods", nargs="+", metavar="METHOD", help="only these methods of the studies")
    add("--list", action="store_true", help="say what would be run and how long it takes; run nothing")
    add("--report", action="store_true", help="write the results of what is finished; run nothing")
    args = parser.parse_args(argv)
    try:
        return _run(args)
    except AirError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nexperiments: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    plan = read_plan(args.plan)
    published = read_records(args.docs / RECORDS)
    experiment = Experiment(plan, args.out, args.recipes, say=lambda text: print(text, flush=True), published=published)
    if args.list:
        total = 0
        for study, asked, new in whole_length(experiment):
            total += new
            print(f"{study.name:<16}{asked:>4} runs, {new:>3} of its own{experiment.hours(new):>7.1f} h  {study.title}")
        print(f"{'':<16}{total:>4} runs in all{experiment.hours(total):>19.1f} h")
        return 0
    failed = 0
    if not args.report:
        failed = experiment.run([plan.study(name) for name in args.only] if args.only else None, args.methods)
    for path in write_report(experiment, args.docs):
        print(path)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
