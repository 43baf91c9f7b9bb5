"""``verl-air scale``: a model of step time at 8 to 4096 GPUs, and of what whole meta-groups add to it. No measurement.

Every size is simulated twice from the same seed: with prompts taken as verl takes them, and with whole meta-groups.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verl_air.errors import ConfigError
from verl_air.evaluation import ChartAxis as Axis
from verl_air.evaluation import ChartLine as Line
from verl_air.evaluation import line_chart
from verl_air.planning.scale import MODES, Assumptions, Cost, conclusions, remedies, scaling
from verl_air.planning.scale.sweep import ALL_SIZES, SIZES


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser("scale", help="a model of step time at many GPUs", description=__doc__)
    add = parser.add_argument
    add("--gpus", metavar="N,N", help="sizes (default: 8,64,512,4096)")
    add("--all-sizes", action="store_true", help="every doubling from 8 to 4096; takes longer")
    add("--mode", choices=MODES, help="one trainer mode (default: all)")
    add("--intents-per-gpu", type=int, default=3, metavar="N", help="of weak scaling (default: 3)")
    add("--fixed-intents", type=int, default=1536, metavar="N", help="of strong scaling (default: 1536)")
    add("--settings-gpus", type=int, default=64, metavar="N", help="size at which settings are varied (default: 64)")
    add("--seed", type=int, default=0, metavar="N", help="of the simulation (default: 0)")
    add("--steps", type=int, metavar="N", help="steps a run (default: 32 of small batches to 8 of large ones)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change an assumption; may be repeated")
    add("--assumptions", action="store_true", help="print the assumptions and end")
    add("--figures", type=Path, metavar="DIR", help="also write scaling-weak.svg and scaling-strong.svg there")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the tables and what follows from them.

    Raises:
        ConfigError: a size, an assumption or a folder that cannot be used.
    """
    a = _assumptions(args.set)
    if args.assumptions:
        print(_table([("assumption", "value", "unit", "source"), *a.table()]))
        return 0
    sizes = ALL_SIZES if args.all_sizes and args.gpus is None else _sizes(args.gpus)
    if min(args.intents_per_gpu, args.fixed_intents) < 1 or args.seed < 0:
        raise ConfigError("--intents-per-gpu and --fixed-intents must be at least 1, --seed at least 0")
    modes = (args.mode,) if args.mode else MODES
    weak = scaling(a, sizes, modes, per_gpu=args.intents_per_gpu, steps=args.steps, seed=args.seed)
    strong = scaling(a, sizes, modes, fixed=args.fixed_intents, steps=args.steps, seed=args.seed)
    settings = remedies(a, args.settings_gpus, modes, per_gpu=args.intents_per_gpu, steps=args.steps, seed=args.seed)
    said = conclusions(weak, strong, settings)
    if args.figures:
        _write_figures(args.figures, weak, strong)
    if args.json:
        rows = {"weak": weak, "strong": strong, "settings": settings}
        print(json.dumps({"assumptions": asdict(a), **{n: [_record(c) for c in cs] for n, cs in rows.items()},
                          "conclusions": said}, indent=1))  # fmt: skip
        return 0
    print(f"weak scaling: {args.intents_per_gpu} intents a GPU\n{describe(weak, 'gpus')}\n")
    print(f"strong scaling: {args.fixed_intents} intents\n{describe(strong, 'gpus')}\n")
    print(f"settings, each changed alone, on {args.settings_gpus} GPUs\n{describe(settings, 'setting')}\n")
    print("\n".join(said), flush=True)
    return 0


def describe(costs: Sequence[Cost], first: str) -> str:
    """A table; ``first``: the field of the second column. Two numbers with a stroke are prompts / whole meta-groups."""
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


def _record(c: Cost) -> dict[str, Any]:
    return asdict(c) | {"extra": c.extra}


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
    kinds: dict[str, Callable[[str], Any]] = {name: type(value) for name, value in asdict(Assumptions()).items()}
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


def _write_figures(folder: Path, weak: Sequence[Cost], strong: Sequence[Cost]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, costs in (("weak", weak), ("strong", strong)):
            (folder / f"scaling-{name}.svg").write_text(_figure(f"Whole meta-groups, {name} scaling (model)", costs))
    except OSError as error:
        raise ConfigError(f"--figures {folder}: {error.strerror}") from error


def _figure(title: str, costs: Sequence[Cost]) -> str:
    """Extra time a trajectory over the number of GPUs, a line a mode."""
    modes = list(dict.fromkeys(c.mode for c in costs))
    lines = []
    for i, mode in enumerate(modes):
        own = [c for c in costs if c.mode == mode]
        marks = [f"{mode}, {c.gpus} GPUs: {c.extra:+.1%}" for c in own]
        lines.append(Line(mode, [(math.log2(c.gpus), c.extra) for c in own], i, marks=marks))
    sizes = sorted({c.gpus for c in costs})
    axis = Axis("GPUs", names=tuple((math.log2(gpus), f"{gpus}") for gpus in sizes))
    return line_chart(lines, axis, Axis("extra time a trajectory", percent=True), title, standalone=True)
