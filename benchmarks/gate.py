"""``make bench``: run the benchmarks, and compare their ratios with the committed ones (``baselines/NAME.json``).

    python -m benchmarks.gate                 # all of them, about 25 minutes on two idle cores
    python -m benchmarks.gate data judge      # some
    python -m benchmarks.gate --update data   # write what was measured as the new baseline

A ratio is of two times, or two sizes, in one run, so that another machine gives about the same. Each benchmark also has
limits of its own, and its exit status. Exit status 1 if a benchmark breaks a limit, or a ratio is worse than the
committed one by more than the tolerance.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

BASELINES = Path(__file__).parent / "baselines"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark and the ratios among its numbers: patterns of dotted keys.

    lower, higher: of ratios where less, or more, is better.
    tolerance: by what share a ratio may get worse; about its scatter between runs of one commit.
    one_core: client and servers share a core.
    """

    lower: str = r"(?!)"
    higher: str = r"(?!)"
    tolerance: float = 0.1
    one_core: bool = False

    def worse_by(self, key: str, before: float, now: float) -> float | None:
        """By what share a number got worse, below zero if it got better; None if it is no ratio."""
        if not before or not now:
            return None
        if re.fullmatch(self.lower, key):
            return now / before - 1
        return before / now - 1 if re.fullmatch(self.higher, key) else None


BENCHMARKS = {
    "driver": Benchmark(lower=r"growth\..*|mixed_over_plain", tolerance=0.5),  # of microseconds at the small sizes
    "actor_update": Benchmark(lower=r".*\.air\.(time|memory)", tolerance=0.05),
    "data": Benchmark(lower=r".*_over_read|check_gib", tolerance=0.15),
    "rewards": Benchmark(higher=r"rules_over_format\..*", tolerance=0.3),
    "evaluate": Benchmark(higher=r"ratio", tolerance=0.1),
    "judge": Benchmark(
        higher=r"facets\.ratio_to_looped\.(at_once|one_by_one)|served\.\w+\.\d+\.ratio", tolerance=0.2, one_core=True
    ),
}


def numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a JSON value, with dotted keys; those in lists are left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from numbers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, float(value)


def measure(name: str) -> tuple[dict[str, Any], int]:
    """Run a benchmark: the JSON that it prints, and its exit status.

    Raises:
        RuntimeError: it printed no JSON.
    """
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}"]
    environment = {**os.environ, "VERL_PLATFORM": "cpu"}
    if BENCHMARKS[name].one_core:
        command, environment["OMP_NUM_THREADS"] = ["taskset", "-c", "0", *command], "1"
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    start, end = done.stdout.find("{"), done.stdout.rfind("}")
    if start < 0:
        raise RuntimeError(f"benchmarks.{name} ended with status {done.returncode} and printed no numbers")
    return json.loads(done.stdout[start : end + 1]), done.returncode


def compare(name: str, measured: Mapping[str, Any]) -> list[list[Any]]:
    """Lines of the table, a ratio each: key, baseline, now, change, and a word where it is worse than allowed."""
    path = BASELINES / f"{name}.json"
    before = dict(numbers(json.loads(path.read_text()))) if path.is_file() else {}
    lines: list[list[Any]] = []
    for key, now in numbers(measured):
        worse = BENCHMARKS[name].worse_by(key, before.get(key, now), now)
        if worse is not None:
            known = before.get(key)
            word = "no baseline" if known is None else "WORSE" if worse > BENCHMARKS[name].tolerance else ""
            lines.append([f"{name} {key}", known, now, "" if known is None else f"{now / known - 1:+.1%}", word])
    return lines


def main() -> int:
    """Measure, print the table, and say whether anything got worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--update", action="store_true", help="write what was measured as the new baselines")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    lines, broken = [], []
    for name in args.names or BENCHMARKS:
        measured, status = measure(name)
        print(f"{name}: {json.dumps(measured)}", flush=True)
        lines += compare(name, measured)
        if status:
            broken.append(name)
        if args.update:
            (BASELINES / f"{name}.json").write_text(json.dumps(measured, indent=1) + "\n")
    print(tabulate(lines, headers=["ratio", "baseline", "now", "change", ""], floatfmt=".3f"))
    for name in broken:
        print(f"{name}: a limit of its own is broken (above)", file=sys.stderr)
    return int(bool(broken) or any(line[-1] == "WORSE" for line in lines))


if __name__ == "__main__":
    raise SystemExit(main())
