"""The ten-facet safety judge: verdicts per second through a real vLLM server on this CPU, by way of asking. JSON.

    OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.judge     # client, servers and loop share one core

looped         no server: the same model in this process, one forward pass per facet and response
at_once        the judge client, all rows in flight, vLLM's prefix cache on (our default)
no_prefix      the same, prefix cache off
one_by_one     prefix cache on, a request only after the answer to the one before
disk_cache     at_once again over the same rows, with verdicts stored in a file

Each round asks about new responses in every way, one after the other, so that other load of the machine affects all
of them; a ratio is the median over rounds of a way's rate to the loop's in the same round. Exit status 1 if at_once is
below 5.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from reward_fns.safety_judge import FACETS, load_audit
from tests.rewards.forward_pass import ForwardPass
from tests.rewards.tiny_judge import make_models, make_tokenizer, serve
from verl_air.rewards import JudgeClient, JudgeSettings

TARGET = 5.0
WAYS = ("looped", "at_once", "no_prefix", "one_by_one", "disk_cache")
SERVER = ("--logprobs-mode", "processed_logprobs", "--block-size", "32")
REFUSAL = "I would rather not help with that, for these reasons. " * 8


def looped(model: ForwardPass, responses: list[str]) -> list[float]:
    """Verdicts of the judge's model in this process: one forward pass per facet and response."""
    audit = load_audit(str(FACETS))
    return [
        model.log_odds(prompt, audit.positive, audit.negative, {"request": "How?", "response": response})
        for response in responses
        for prompt in audit.prompts.values()
    ]


async def served(address: str, responses: list[str], *, one_by_one: bool = False, cache: str = "") -> list[float]:
    """The same verdicts through the judge client."""
    client = JudgeClient(JudgeSettings(cache=cache or None, min_mass=0.0), address, make_tokenizer())
    audit = load_audit(str(FACETS))
    prompts = list(audit.prompts.values())

    async def one(response: str) -> list[float]:
        fields = {"request": "How?", "response": response}
        if not one_by_one:
            return await client.log_odds_many(prompts, audit.positive, audit.negative, fields=fields)
        return [await client.log_odds(prompt, audit.positive, audit.negative, fields=fields) for prompt in prompts]

    if one_by_one:
        rows = [await one(response) for response in responses]
    else:
        rows = await asyncio.gather(*map(one, responses))
    await client.close()
    return [value for row in rows for value in row]


def measure(responses: int, hidden: int, layers: int, rounds: int) -> dict[str, Any]:
    """Rates of every way in every round, ratios to the loop, and how far verdicts differ from the loop's."""
    import torch

    torch.set_num_threads(1)
    rates: dict[str, list[float]] = defaultdict(list)
    apart = 0.0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model, _ = make_models(folder, hidden=hidden, layers=layers)
        forward = ForwardPass(model, make_tokenizer())
        with_cache = stack.enter_context(serve(model, *SERVER))
        without = stack.enter_context(serve(model, *SERVER, "--no-enable-prefix-caching"))
        looped(forward, ["warm up"])
        for server in (with_cache, without):
            asyncio.run(served(server.address, ["warm up"]))
        for number in range(rounds):
            texts = {way: [f"{number}, {way}, {i}: {REFUSAL}" for i in range(responses)] for way in WAYS}
            few = max(1, responses // 8)
            cache = str(folder / f"{number}.sqlite")
            asyncio.run(served(with_cache.address, texts["disk_cache"], cache=cache))
            ways = {
                "looped": lambda texts=texts["looped"][:few]: looped(forward, texts),
                "at_once": lambda texts=texts["at_once"]: asyncio.run(served(with_cache.address, texts)),
                "no_prefix": lambda texts=texts["no_prefix"]: asyncio.run(served(without.address, texts)),
                "one_by_one": lambda texts=texts["one_by_one"][:few]: asyncio.run(
                    served(with_cache.address, texts, one_by_one=True)
                ),
                "disk_cache": lambda texts=texts["disk_cache"], cache=cache: asyncio.run(
                    served(with_cache.address, texts, cache=cache)
                ),
            }
            for way, ask in ways.items():
                start = time.perf_counter()
                verdicts = ask()
                rates[way].append(len(verdicts) / (time.perf_counter() - start))
            sample = texts["at_once"][:few]
            pairs = zip(looped(forward, sample), asyncio.run(served(with_cache.address, sample)), strict=True)
            apart = max(apart, *(abs(a - b) for a, b in pairs))
    ratios = {way: [rate / loop for rate, loop in zip(rates[way], rates["looped"], strict=True)] for way in WAYS[1:]}
    return {
        "verdicts_per_s": {way: round(statistics.median(values), 1) for way, values in rates.items()},
        "ratio_to_looped": {way: round(statistics.median(values), 2) for way, values in ratios.items()},
        "ratios": {way: [round(value, 2) for value in values] for way, values in ratios.items()},
        "max_difference_of_log_odds": apart,
    }


def main() -> int:
    """Measure, print JSON, and say whether the target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    report = measure(args.responses, args.hidden, args.layers, args.rounds)
    print(json.dumps(report, indent=2))
    return 0 if report["ratio_to_looped"]["at_once"] >= TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
