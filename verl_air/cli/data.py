"""``verl-air data safety|moral|math``: build train, ID and OOD files from public sets or your own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from verl_air.data.anchors import anchor_format_names
from verl_air.data.build import BuildOptions, Material, build
from verl_air.data.domains.maths import read_math
from verl_air.data.domains.moral import read_moral
from verl_air.data.domains.safety import read_safety
from verl_air.data.framings import load_framings
from verl_air.extensions import load_plugins

_DEFAULTS = BuildOptions()


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command and its three domains."""
    parser = subparsers.add_parser("data", help="build training and evaluation files", description=__doc__)
    domains = parser.add_subparsers(dest="domain", required=True, metavar="DOMAIN")
    safety = domains.add_parser("safety", help="harmful requests (AdvBench or your own) and harmless ones")
    _add_common(safety)
    safety.add_argument("--benign", nargs="+", default=[], metavar="FILE", help="harmless requests, as contrast")
    safety.add_argument(
        "--no-shipped-benign", action="store_true", help="leave out the 60 harmless requests shipped here"
    )
    safety.add_argument("--column", help="the column that holds the request")
    moral = domains.add_parser("moral", help="dilemmas (MoralChoice, ETHICS)")
    _add_common(moral)
    math = domains.add_parser("math", help="word problems with worked solutions (GSM8K)")
    _add_common(math)
    math.add_argument("--column", help="the column that holds the problem")
    math.add_argument("--solution-column", help="the column that holds the worked solution")


def run(args: argparse.Namespace) -> int:
    """Build and say what was built.

    Raises:
        DataError: the sources or the options cannot be used.
    """
    load_plugins()
    for path in args.framings:
        load_framings(path)
    options = BuildOptions(
        seed=args.seed,
        held_out=args.held_out,
        anchors=args.anchors,
        open_=args.open,
        train_anchors=args.train_anchors,
        train_open=args.train_open,
        formats=tuple(args.formats),
        ood_families=tuple(sorted(args.ood_families)),
    )
    manifest = build(_read(args), options, Path(args.out))
    _print(manifest, Path(args.out))
    return 0


def _read(args: argparse.Namespace) -> Material:
    if args.domain == "safety":
        return read_safety(
            args.source,
            benign=args.benign,
            shipped_benign=not args.no_shipped_benign,
            held_out=args.held_out_source,
            column=args.column,
        )
    if args.domain == "moral":
        return read_moral(args.source, held_out=args.held_out_source, seed=args.seed)
    return read_math(
        args.source,
        held_out=args.held_out_source,
        column=args.column,
        solution_column=args.solution_column,
        seed=args.seed,
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    add, names = parser.add_argument, ", ".join(anchor_format_names())
    add(
        "--source",
        nargs="+",
        required=True,
        metavar="FILE",
        help="CSV, TSV, JSONL, parquet, or hub name[:config][@split]",
    )
    add("--out", required=True, metavar="DIR", help="folder to write into")
    add("--seed", type=int, default=_DEFAULTS.seed)
    add("--held-out", type=float, default=_DEFAULTS.held_out, metavar="N", help="share (below 1) or number of intents")
    add("--held-out-source", nargs="+", default=[], metavar="FILE", help="take the held-out intents from here instead")
    add("--anchors", type=int, default=_DEFAULTS.anchors, help="anchors an intent in ID and OOD")
    add("--open", type=int, default=_DEFAULTS.open_, help="open variants an intent in ID and OOD")
    add("--train-anchors", type=int, default=_DEFAULTS.train_anchors, help="anchors a training intent")
    add("--train-open", type=int, default=_DEFAULTS.train_open, help="open variants a training intent")
    add("--formats", nargs="+", default=_DEFAULTS.formats, metavar="NAME", help=f"anchor formats, in turn: {names}")
    add("--framings", nargs="+", default=[], metavar="FILE", help="YAML files with framings of your own")
    add("--ood-families", nargs="+", default=_DEFAULTS.ood_families, help="families of framings held out for OOD")
    parser.set_defaults(func=run)


def _print(manifest: dict[str, Any], out: Path) -> None:
    for split, counts in manifest["splits"].items():
        roles = counts["roles"]
        print(
            f"{out / f'{split}.parquet'}: {counts['intents']} intents, {counts['rows']} rows "
            f"({roles['anchor']} anchors, {roles['open']} open)"
        )
    for reason, excluded in manifest["excluded"].items():
        print(f"left out: {excluded['count']} rows: {reason} (e.g. {excluded['examples'][0]})")
