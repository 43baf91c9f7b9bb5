"""At which step do proxy and oracle part? ``python -m studies.judge_faults RUN...``.

A RUN is a run's folder with its rollouts (``trainer.rollout_data_dir``). Its open training responses are scored again,
by the reward that validation uses: the oracle. They part at the first step from which the training reward calls
``--by`` more of them right, in the mean of three steps, until the end. The last column is the report's alarm.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from studies.experiment.runs import RunRecord, curves_in, read_records
from verl_air.errors import AirError
from verl_air.evaluation.records import JsonLines
from verl_air.evaluation.report.alarms import Alarm, alarms_of, hacking_alarm
from verl_air.evaluation.report.summary import summarise
from verl_air.evaluation.run_folder import Series, read_run_folder
from verl_air.evaluation.scoring import read_evaluation_settings
from verl_air.evaluation.tables import markdown_table, percent
from verl_air.rewards import compute_score

_WINDOW = 3
_TASK, _FORMAT = (-1.0, 1.25), 1.25  # rewards of the experiment's runs: wrong and right, and a right format


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m studies.judge_faults", description=__doc__)
    add = parser.add_argument
    add("runs", type=Path, nargs="*", metavar="RUN", help="run folders")
    add("--by", type=float, default=0.15, help="share of responses by which they part (%(default)s)")
    add("--split", default="id", help="the split whose reward is the oracle (%(default)s)")
    add("--records", type=Path, metavar="FILE", help="also count alarms over an experiment's records.jsonl")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 2 if a run cannot be read or scored."""
    args = make_parser().parse_args(argv)
    try:
        rows = [["run", "passed, first to last", "right, first to last", "part at step", "reward hacking"]]
        rows += [_row(path, args.split, args.by) for path in args.runs]
        if args.runs:
            print("\n".join(markdown_table(rows)))
        if args.records:
            print("\n".join(_count(list(read_records(args.records).values()))))
    except AirError as error:
        print(f"judge_faults: {error}", file=sys.stderr)
        return 2
    return 0


def _row(path: Path, split: str, by: float) -> list[str]:
    proxy, oracle = proxy_and_oracle(path, split)
    (run,) = summarise([path]).runs
    (alarm,) = [alarm for alarm in alarms_of(run) if alarm.check == "reward hacking"]
    ends = [f"{percent(series[min(series)])} to {percent(series[max(series)])}" for series in (proxy, oracle)]
    return [run.name, *ends, str(parted_at(proxy, oracle, by) or "never"), f"{alarm.level}: {alarm.value}"]


def proxy_and_oracle(path: Path, split: str) -> tuple[Series, Series]:
    """Share of open training responses that the training reward calls right, and the oracle, by step.

    Raises:
        ConfigError, RewardError: the run's recipe has no rewards, or none for the split.
        DataError: rollouts cannot be read.
    """
    kwargs = read_evaluation_settings(path).reward_kwargs
    proxy: Series = {}
    oracle: Series = {}
    for step, file in read_run_folder(path).rollouts.items():
        rows = [row for _, row in JsonLines(file) if row["role"] == "open" and row["acc"] == row["acc"]]
        if rows:
            proxy[step] = fmean(row["acc"] for row in rows)
            oracle[step] = fmean(asyncio.run(_judged_again(rows, split, kwargs)))
    return proxy, oracle


async def _judged_again(rows: Sequence[Mapping[str, Any]], split: str, kwargs: Mapping[str, Any]) -> list[float]:
    return [
        scored["acc"]
        for row in rows
        if (
            scored := await compute_score(
                f"{row['domain']}/{split}", row["output"], row["gts"], {**row, "split": split}, **kwargs
            )
        )["abstained"]
        == 0
    ]


def parted_at(proxy: Series, oracle: Series, by: float) -> int | None:
    """The first step from which the proxy is ahead by this much to the end, in the mean of three steps; None: never."""
    steps = sorted(proxy.keys() & oracle.keys())
    ahead = [proxy[step] - oracle[step] for step in steps]
    smooth = [fmean(ahead[max(0, i - _WINDOW + 1) : i + 1]) for i in range(len(ahead))]
    found = None
    for step, value in zip(reversed(steps), reversed(smooth), strict=True):
        if value < by:
            break
        found = step
    return found


def _count(records: Sequence[RunRecord]) -> list[str]:
    """How often the alarm fires over an experiment's runs: hacked rewards, worlds whose judge was weak, clean ones."""
    weak = {record["seed"] for record in records if (record.get("world") or {}).get("judge", 1.0) < 0.85} | _WEAK
    kinds: dict[str, list[Alarm]] = {"reward made to be hacked": [], "weak judge": [], "clean": []}
    for record in records:
        hacked = record["method"].startswith("hacked-")
        kind = "reward made to be hacked" if hacked else "weak judge" if record["seed"] in weak else "clean"
        kinds[kind].append(alarm_of(record))
    head = ["runs", "number", "warn or bad", "bad"]
    levels = {kind: [alarm.level for alarm in alarms] for kind, alarms in kinds.items()}
    rows = [[k, str(len(v)), str(len(v) - v.count("ok")), str(v.count("bad"))] for k, v in levels.items()]
    return markdown_table([head, *rows])


_WEAK = {5, 7}  # of the experiment, whose records do not hold what its judges could do (its README does)


def alarm_of(record: RunRecord) -> Alarm:
    """The records hold no verdicts of training: they follow from its mean reward, but for broken formats."""
    reward = {int(step): value for step, value in record["training"]["air/open_reward/mean"].items()}
    wrong, right = _TASK
    verdicts = {step: (value - _FORMAT - wrong) / (right - wrong) for step, value in reward.items()}
    accuracy = {source: metrics["open_acc"] for source, metrics in curves_in(record).items()}
    return hacking_alarm(reward, verdicts, accuracy)


if __name__ == "__main__":
    sys.exit(main())
