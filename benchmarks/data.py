"""How long building and checking take, in CPU seconds and as ratios to reading the same files.

    python benchmarks/data.py                 # one million rows, about two minutes and 300 MB of scratch disk
    python benchmarks/data.py --rows 100000

Limits for one million rows on one core: check in under 20 s and 1.2 GiB. Exit status 1 if one is broken.
CPU seconds, so that a busy machine measures about the same as an idle one; all of it runs in one thread.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from verl_air.data.build import BuildOptions, build
from verl_air.data.check import check_files
from verl_air.data.groups import read_groups
from verl_air.data.intents import BuildInput, Exclusions, IntentSpec
from verl_air.data.math import ANSWER, DOMAIN, make_math_intent
from verl_air.data.schema import SPLITS, read_rows

SECONDS_PER_MILLION, GIB = 20.0, 1.2
_THINGS = ("apples", "pears", "ropes", "lamps", "nails", "bricks", "cards", "pens", "boats", "coins", "maps", "tiles")
_PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "Jun", "Kai", "Lena", "Mio", "Noor")
_PLACES = ("market", "harbour", "school", "station", "garden", "museum", "library", "farm")


def problems(n: int) -> Iterator[IntentSpec]:
    """Made-up word problems, of about the length of GSM8K's."""
    rng = random.Random(0)
    for number in range(n):
        a, b, c = rng.randint(2, 400), rng.randint(2, 90), rng.randint(2, 30)
        people, things = rng.sample(_PEOPLE, 3), rng.sample(_THINGS, 3)
        text = (
            f"Case {number}. {people[0]} brings {a} {things[0]} and {b} {things[1]} to the {rng.choice(_PLACES)}. "
            f"{people[1]} counts them and adds {c} boxes with as many {things[2]} as {people[2]} has {things[1]}. "
            f"How many things lie there when {people[0]} has {rng.choice(('all', 'each', 'none'))} of them in sight?"
        )
        total = a + b + c * b
        solution = f"{a}+{b}=<<{a}+{b}={a + b}>>{a + b}\n{c}*{b}=<<{c}*{b}={c * b}>>{c * b}\n#### {total}"
        yield make_math_intent(text, solution, seed=0)


def measure(rows: int, folder: Path) -> dict[str, float]:
    """Build a set of about so many rows and check it; a child process measures the memory of the check."""
    options = BuildOptions(held_out=0.1)
    per_intent = 0.9 * (options.train_anchors + options.train_open) + 0.2 * (options.anchors + options.open_)
    started = time.process_time()
    intents = list(problems(round(rows / per_intent)))
    material = BuildInput(DOMAIN, ANSWER, sources=[], intents=intents, exclusions=Exclusions())
    manifest = build(material, options, folder)
    built_s = time.process_time() - started
    files = [str(folder / f"{split}.parquet") for split in SPLITS]
    started = time.process_time()
    n_rows = sum(1 for file in files for _ in read_rows(file))
    read_s = time.process_time() - started
    started = time.process_time()
    read_groups(files, anchors=1, open_=3)
    groups_s = time.process_time() - started
    child = subprocess.run(
        [sys.executable, __file__, "--check-only", *files], check=True, capture_output=True, text=True
    )
    checked = json.loads(child.stdout)
    return {
        "rows": n_rows,
        "intents": sum(manifest["strata"].values()),
        "build_s": round(built_s, 1),
        "read_s": round(read_s, 1),
        "groups_s": round(groups_s, 2),
        "check_s": checked["seconds"],
        "check_wall_s": checked["wall_s"],
        "check_gib": checked["gib"],
        "findings": checked["findings"],
        "check_over_read": round(checked["seconds"] / read_s, 2),
        "build_over_read": round(built_s / read_s, 2),
    }


def check_only(files: list[str]) -> dict[str, float]:
    """Time and peak memory of a check in this process."""
    started, wall = time.process_time(), time.perf_counter()
    report = check_files(files)
    return {
        "seconds": round(time.process_time() - started, 1),
        "wall_s": round(time.perf_counter() - wall, 1),
        "gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "findings": report.counts.total(),
    }


def main() -> int:
    """Measure, print JSON, and say whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--check-only", nargs="+", metavar="FILE")
    args = parser.parse_args()
    if args.check_only:
        print(json.dumps(check_only(args.check_only)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(args.rows, Path(folder))
    print(json.dumps(measured, indent=2))
    allowed_s = SECONDS_PER_MILLION * max(1.0, args.rows / 1e6)
    return int(measured["check_s"] > allowed_s or measured["check_gib"] > GIB)


if __name__ == "__main__":
    raise SystemExit(main())
