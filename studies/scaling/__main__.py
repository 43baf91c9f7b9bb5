"""A model of step time at 8 to 4096 GPUs, and of what whole meta-groups add to it: ``python -m studies.scaling``.

Every size is simulated twice from the same seed: with prompts taken as verl takes them, and with whole meta-groups.
Nothing is measured.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from studies.scaling.assumptions import Assumptions
from studies.scaling.simulation import MODES
from studies.scaling.sweep import SIZES, Cost, conclusions, remedies, scaling
from verl_air.errors import AirError, ConfigError
from verl_air.evaluation import ChartAxis, ChartLine, line_chart
from verl_air.files import write_atomically


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m studies.scaling", description=__doc__)
    add = parser.add_argument
    add("--gpus", metavar="N,N", help="sizes (default: 8,64,512,4096)")
    add("--mode", choices=MODES, help="one trainer mode (default: all)")
    add("--intents-per-gpu", type=int, default=3, metavar="N", help="of weak scaling (default: 3)")
    add("--fixed-intents", type=int, default=1536, metavar="N", help="of strong scaling (default: 1536)")
    add("--settings-gpus", type=int, default=64, metavar="N", help="size at which settings are varied (default: 64)")
    add("--seed", type=int, default=0, metavar="N", help="of the simulation (default: 0)")
    add("--steps", type=int, metavar="N", help="steps per run (default: 32 for small batches to 8 for large ones)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change an assumption; may be repeated")
    add("--assumptions", action="store_true", help="print the assumptions and end")
    add("--out", type=Path, metavar="DIR", help="also write results.txt, weak.svg and strong.svg there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 2 if a size, an assumption or a folder cannot be used."""
    args = make_parser().parse_args(argv)
    try:
        return _run(args)
    except AirError as error:
        print(f"scaling: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    a = _assumptions(args.set)
    assumptions = _table([("assumption", "value", "unit", "source"), *a.table()])
    if args.assumptions:
        print(assumptions)
        return 0
    sizes = _sizes(args.gpus)
    if min(args.intents_per_gpu, args.fixed_intents) < 1 or args.seed < 0:
        raise ConfigError("--intents-per-gpu and --fixed-intents must be at least 1, --seed at least 0")
    modes = (args.mode,) if args.mode else MODES
    weak = scaling(a, sizes, modes, per_gpu=args.intents_per_gpu, steps=args.steps, seed=args.seed)
    strong = scaling(a, sizes, modes, fixed=args.fixed_intents, steps=args.steps, seed=args.seed)
    settings = remedies(a, args.settings_gpus, modes, per_gpu=args.intents_per_gpu, steps=args.steps, seed=args.seed)
    text = "\n\n".join(
        [
            f"weak scaling: {args.intents_per_gpu} intents per GPU\n{describe(weak, 'gpus')}",
            f"strong scaling: {args.fixed_intents} intents\n{describe(strong, 'gpus')}",
            f"settings, each changed alone, on {args.settings_gpus} GPUs\n{describe(settings, 'setting')}",
            "\n".join(conclusions(weak, strong, settings)),
        ]
    )
    print(text, flush=True)
    if args.out:
        try:
            write_atomically(args.out / "results.txt", f"{assumptions}\n\n{text}\n")
            for name, costs in (("weak", weak), ("strong", strong)):
                write_atomically(args.out / f"{name}.svg", _figure(f"Whole meta-groups, {name} scaling (model)", costs))
        except OSError as error:
            raise ConfigError(f"--out {args.out}: {error.strerror}") from error
    return 0


def describe(costs: Sequence[Cost], first: str) -> str:
    """A table; ``first``: the field of the second column. Two numbers with a slash are prompts / whole meta-groups."""
    head = ("mode", first, "step s", "waiting s", "extra", "idle", "age", "age p99", "with air", "replaced", "stale")
    return _table([head, *(_row(c, str(getattr(c, first))) for c in costs)])


def _row(c: Cost, name: str) -> tuple[str, ...]:
    p, g = c.prompts, c.groups
    late = f"{p.span_p99:.0f} / {g.span_p99:.0f}"
    return (
        c.mode, name, f"{p.step_s:.1f} / {g.step_s:.1f}", f"{p.wait_s:.1f} / {g.wait_s:.1f}", f"{c.extra:+.1%}",
        f"{p.idle:.0%} / {g.idle:.0%}", f"{p.span_mean:.1f} / {g.span_mean:.1f}", late,
        f"{g.with_air:.1%}", f"{p.replaced:.1%} / {g.replaced:.1%}", f"{p.stale:.1%} / {g.stale:.1%}",
    )  # fmt: skip


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _sizes(text: str | None) -> tuple[int, ...]:
    if text is None:
        return SIZES
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--gpus {text}: whole numbers with commas between them") from error
    if min(sizes) < 2 or max(sizes) > 65536:
        raise ConfigError(f"--gpus {text}: from 2 to 65536")
    return sizes


def _assumptions(changes: Sequence[str]) -> Assumptions:
    kinds: dict[str, Callable[[str], Any]] = {name: type(value) for name, value in Assumptions().model_dump().items()}
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in kinds:
            raise ConfigError(f"--set {change}: no such assumption; see --assumptions")
        try:
            values[name] = kinds[name](text)
        except ValueError as error:
            raise ConfigError(f"--set {change}: not a number of the kind of {name}") from error
    return Assumptions(**values)


def _figure(title: str, costs: Sequence[Cost]) -> str:
    """Extra time per trajectory over the number of GPUs, one line per mode."""
    modes = list(dict.fromkeys(c.mode for c in costs))
    lines = []
    for i, mode in enumerate(modes):
        own = [c for c in costs if c.mode == mode]
        marks = [f"{mode}, {c.gpus} GPUs: {c.extra:+.1%}" for c in own]
        lines.append(ChartLine(mode, [(math.log2(c.gpus), c.extra) for c in own], i, marks=marks))
    sizes = sorted({c.gpus for c in costs})
    axis = ChartAxis("GPUs", names=tuple((math.log2(gpus), f"{gpus}") for gpus in sizes))
    return line_chart(lines, axis, ChartAxis("extra time per trajectory", percent=True), title, standalone=True)


if __name__ == "__main__":
    raise SystemExit(main())
