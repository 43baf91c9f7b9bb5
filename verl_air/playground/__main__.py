"""Build a playground: ``python -m verl_air.playground --out DIR --seed 0``."""

from __future__ import annotations

import argparse
import sys

from verl_air.errors import AirError
from verl_air.playground.build import PlaygroundConfig, build_playground
from verl_air.playground.framings import FRAMINGS
from verl_air.playground.measure import shortfalls
from verl_air.playground.model import WarmStartConfig


def make_parser() -> argparse.ArgumentParser:
    """The command line; defaults are those of :class:`PlaygroundConfig`."""
    defaults = PlaygroundConfig()
    parser = argparse.ArgumentParser(prog="python -m verl_air.playground", description=__doc__)
    parser.add_argument("--out", required=True, help="folder to make; kept if it was made with the same settings")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--setting", choices=FRAMINGS, default=defaults.setting, help="of framings (%(default)s)")
    parser.add_argument("--train", type=int, default=defaults.train, help="training intents (%(default)s)")
    parser.add_argument("--held-out", type=int, default=defaults.held_out, help="held-out intents (%(default)s)")
    parser.add_argument("--steps", type=int, default=defaults.warm_start.steps, help="warm-start steps (%(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = make_parser().parse_args(arguments)
    warm_start = WarmStartConfig(steps=args.steps)
    config = PlaygroundConfig(
        seed=args.seed, setting=args.setting, train=args.train, held_out=args.held_out, warm_start=warm_start
    )
    try:
        measured = build_playground(args.out, config)["measured"]
    except (AirError, ValueError) as error:
        print(f"playground: {error}", file=sys.stderr)
        return 1
    judge = f"{measured['judge']:.2f}" if "judge" in measured else "was never asked"
    print(f"playground in {args.out}, before any RL, intents that RL will not see:")
    print(
        f"  anchors {measured['anchor']:.2f}   format {measured['format']:.2f}   judge agrees with the oracle {judge}"
    )
    print("  framing            harmful: right   benign: right")
    for framing in FRAMINGS[args.setting]:
        harmful, benign = (measured[f"{kind}/{framing.name}"] for kind in ("harmful", "benign"))
        print(f"  {framing.name:<17} {framing.side:<4}     {harmful:.2f}            {benign:.2f}")
    if short := shortfalls(measured):
        print(f"playground: the warm start did not succeed ({'; '.join(short)}); try another --seed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
