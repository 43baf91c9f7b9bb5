"""``verl-air data safety|moral|math``: build train, ID and OOD files from public sets or your own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from verl_air.data.anchors import anchor_format_names
from verl_air.data.build import BuildOptions, build
from verl_air.data.framings import load_framings
from verl_air.data.intents import BuildInput, Exclusions
from verl_air.data.math import read_math
from verl_air.data.moral import read_moral
from verl_air.data.safety import read_safety
from verl_air.extensions import load_plugins
from verl_air.rewards import STYLES

_DEFAULTS = BuildOptions()


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command and its three domains."""
    parser = subparsers.add_parser("data", help="build training and evaluation files", description=__doc__)
    domains = parser.add_subparsers(dest="domain", required=True, metavar="DOMAIN")
    safety = domains.add_parser("safety", help="harmful requests (AdvBench or your own) and harmless ones")
    safety.add_argument("--benign", nargs="+", default=[], metavar="FILE", help="harmless requests, as contrast")
    safety.add_argument("--no-shipped-benign", action="store_true", help="omit the 60 harmless requests shipped here")
    safety.add_argument("--column", help="the column that holds the request")
    safety.add_argument(
        "--label", metavar="COLUMN:VALUE=KIND,...", help="which values are harmful, benign or drop; or none"
    )
    safety.add_argument(
        "--benign-share", type=float, metavar="S", help="share of harmless intents in every split; others are left out"
    )
    moral = domains.add_parser("moral", help="dilemmas (MoralChoice, ETHICS, Moral Stories)")
    math = domains.add_parser("math", help="problems with worked solutions (GSM8K, MATH)")
    math.add_argument("--column", help="the column that holds the problem")
    math.add_argument("--solution-column", help="the column that holds the worked solution")
    for domain in (safety, moral, math):
        _add_common(domain)


def _add_common(parser: argparse.ArgumentParser) -> None:
    def add(name: str, help_: str, **options: Any) -> None:
        parser.add_argument(name, help=help_, **options)

    files, names, count = {"nargs": "+", "metavar": "FILE"}, {"nargs": "+", "metavar": "NAME"}, {"type": int}
    add(
        "--source", "[PRESET:]FILE or hub name[:config][@split]; PRESET: a published safety set", required=True, **files
    )
    add("--out", "folder to write into", required=True, metavar="DIR")
    add("--seed", "the same seed and data give the same files", default=_DEFAULTS.seed, **count)
    add("--held-out", "share (below 1) or number of intents", type=float, default=_DEFAULTS.held_out, metavar="N")
    add("--held-out-source", "take the held-out intents from here instead", default=[], **files)
    add("--anchors", "anchors per intent in ID and OOD", default=_DEFAULTS.anchors, **count)
    add("--open", "open variants per intent in ID and OOD", default=_DEFAULTS.open_, **count)
    add("--train-anchors", "anchors per training intent", default=_DEFAULTS.train_anchors, **count)
    add("--train-open", "open variants per training intent", default=_DEFAULTS.train_open, **count)
    formats = ", ".join(anchor_format_names())
    add("--formats", f"anchor formats, in turn: {formats}", default=_DEFAULTS.formats, **names)
    add("--style", "response style of the recipe (format.style)", default=_DEFAULTS.style, choices=STYLES)
    add(
        "--framings",
        "framings of your own (YAML), or jailbreak templates (JSON, CSV[@FAMILY_COLUMN])",
        default=[],
        **files,
    )
    add("--max-prompt-length", "data.max_prompt_length of the recipe", default=_DEFAULTS.max_prompt_length, **count)
    add("--tokenizer", "folder or hub name to count tokens with, instead of three bytes each", metavar="PATH")
    add("--ood-families", "families of framings held out for OOD", default=_DEFAULTS.ood_families, **names)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Build and print what was built.

    Raises:
        DataError: the sources or the options cannot be used.
    """
    load_plugins()
    left_out = Exclusions()
    for path in args.framings:
        load_framings(path, left_out)
    for reason, excluded in left_out.as_dict().items():
        print(f"left out: {excluded['count']} framings: {reason} (e.g. {excluded['examples'][0]})")
    names = ("seed", "held_out", "anchors", "train_anchors", "train_open", "max_prompt_length", "tokenizer", "style")
    chosen = {name: getattr(args, name) for name in names}
    formats, ood_families = tuple(args.formats), tuple(sorted(args.ood_families))
    share = getattr(args, "benign_share", None)
    options = BuildOptions(**chosen, open_=args.open, formats=formats, ood_families=ood_families, benign_share=share)
    out = Path(args.out)
    manifest = build(_read(args), options, out)
    for split, counts in manifest["splits"].items():
        anchors, open_ = counts["roles"]["anchor"], counts["roles"]["open"]
        totals = f"{counts['intents']} intents, {counts['rows']} rows ({anchors} anchors, {open_} open)"
        print(f"{out / f'{split}.parquet'}: {totals}")
    for reason, excluded in manifest["excluded"].items():
        print(f"left out: {excluded['count']} rows: {reason} (e.g. {excluded['examples'][0]})")
    for warning in manifest["warnings"]:
        print(f"warning: {warning}")
    return 0


def _read(args: argparse.Namespace) -> BuildInput:
    source, held_out = args.source, args.held_out_source
    if args.domain == "safety":
        return read_safety(
            source, benign=args.benign, shipped_benign=not args.no_shipped_benign, held_out=held_out,
            column=args.column, label=args.label,
        )  # fmt: skip
    if args.domain == "moral":
        return read_moral(source, held_out=held_out, seed=args.seed)
    solution = args.solution_column
    return read_math(source, held_out=held_out, column=args.column, solution_column=solution, seed=args.seed)
