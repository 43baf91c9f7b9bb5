"""Judges on this CPU: the rate by way of asking. Prints JSON; exits with 1 if a target is missed.

    OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.judge     # client, servers and loop share one core

Part `facets`: ten-facet verdicts per second through a real vLLM server. Target: at_once at least 5 times the loop.

looped         no server: the same model in this process, one forward pass per facet and response
at_once        the judge client, all rows in flight, vLLM's prefix cache on (our default)
no_prefix      the same, prefix cache off
one_by_one     prefix cache on, a request only after the answer to the one before
disk_cache     at_once again over the same rows, with verdicts stored in a file

Part `in_process`: ten facets of an exchange of 300 tokens, read in this process from --model. Target: at least 5 times
the loop.

Part `served`: rows per second of `guard_judge` (one question: HarmBench's classifier) and of `safety_judge` (ten facets
in one request) through compute_score, against the same requests posted to the same server as they are, equally many in
flight; and how long a row takes. Target: at least 0.8 of the rate at each number of --in-flight.

Each round asks about new responses in every way, one after the other, so that other load of the machine affects all
of them; a ratio is the median over rounds of a way's rate to its reference in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from reward_fns.safety_judge import FACETS, load_audit
from tests.rewards.forward_pass import ForwardPass
from tests.rewards.support import row
from tests.rewards.tiny_judge import MAX_LENGTH, make_models, make_tokenizer, serve
from verl_air.rewards import JudgeClient, JudgeError, JudgeSettings, Sample, ScoringPlan, compute_score
from verl_air.rewards.judge import close_clients
from verl_air.rewards.judge.in_process import InProcessJudge

TARGETS = {"facets": 5.0, "in_process": 5.0, "served": 0.8}
WAYS = ("looped", "at_once", "no_prefix", "one_by_one", "disk_cache")
SERVER = ("--logprobs-mode", "processed_logprobs", "--block-size", "32")
JUDGES = {
    "guard": {"name": "guard_judge", "guard": "harmbench_cls"},
    "facets": {"name": "safety_judge", "constructive": 1.25},  # no second question to what is safe
}
LEVEL_S = 60.0
"""After two rounds no further one is begun at a number in flight that took so long."""
Request = tuple[str, dict[str, Any]]
Timed = tuple[float, list[float]]
"""Seconds in all, and of each row."""
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


def facets(responses: int, hidden: int, layers: int, rounds: int) -> dict[str, Any]:
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
        "ratio": statistics.median(ratios["at_once"]),
    }


def in_process(model: Path, responses: int, rounds: int) -> dict[str, Any]:
    """Verdicts per second of the in-process judge and of one forward pass per facet, with a model of real size.

    Of processor time, since nothing but this process takes part.
    """
    audit, rates, apart = load_audit(str(FACETS)), defaultdict(list), 0.0
    prompts = list(audit.prompts.values())
    forward, judge = ForwardPass(model), InProcessJudge(JudgeSettings(in_process=str(model), min_mass=0.0))
    for number in range(rounds + 1):  # the first warms up
        texts = [forward.tokens.first_tokens(f"{number} {i} {REFUSAL * 4}", 290) for i in range(responses)]
        start = time.process_time()
        expected = looped(forward, texts)
        middle = time.process_time()
        found: list[float] = []
        for text in texts:
            fields = {"request": "How?", "response": text}
            found += asyncio.run(judge.log_odds_many(prompts, audit.positive, audit.negative, fields=fields))
        if number:
            rates["looped"].append(len(found) / (middle - start))
            rates["in_process"].append(len(found) / (time.process_time() - middle))
        apart = max(apart, *(abs(a - b) for a, b in zip(expected, found, strict=True)))
    tokens = len(asyncio.run(judge._encode(prompts[:1], fields))[0])
    return report(rates, "in_process", "looped") | {"prompt_tokens": tokens, "max_difference_of_log_odds": apart}


class Recorder(JudgeClient):
    """Writes requests and sends none."""

    def __init__(self, model: Path) -> None:
        settings = JudgeSettings(model=str(model), max_prompt_tokens=MAX_LENGTH)
        super().__init__(settings, "not-served", make_tokenizer())
        self.sent: list[Request] = []

    async def _post(self, path: str, payload: dict[str, Any]) -> Any:
        self.sent.append((path, payload))
        raise JudgeError("not sent")


async def recorded(model: Path, route: dict[str, Any], texts: list[str]) -> list[Request]:
    """The requests that we send about these texts."""
    recorder, extra = Recorder(model), row("safety", "open", request="How?")
    bound = ScoringPlan({"*": route}).reward_for("safety/train", extra)
    for text in texts:
        with suppress(JudgeError):
            await bound.reward.call(Sample(text, text, True, "", "safety/train", extra), recorder, **bound.options)
    return recorder.sent


async def in_flight(number: int, ask: Callable[[Any], Awaitable[None]], items: list[Any]) -> Timed:
    """Ask about all items, so many at a time."""
    queue, seconds = iter(items), []

    async def worker() -> None:
        for item in queue:
            begin = time.perf_counter()
            await ask(item)
            seconds.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(number)))
    return time.perf_counter() - begin, seconds


async def ours(address: str, route: dict[str, Any], number: int, texts: list[str]) -> Timed:
    """Rows through ``compute_score``."""
    settings = {
        "routes": {"*": route},
        "judge": {"min_mass": 0.0, "max_concurrency": number},
        "reward_router_address": address,
        "reward_model_tokenizer": make_tokenizer(),
    }
    extra = row("safety", "open", request="How?")

    async def ask(text: str) -> None:
        scored = await compute_score("safety/train", text, "", extra, **settings)
        assert not scored["abstained"]

    await ask(texts[0])  # a reward worker's client is made once
    found = await in_flight(number, ask, texts[1:])
    await close_clients()
    return found


async def bare(address: str, number: int, requests: list[Request]) -> Timed:
    """The same requests, sent as they are, and their answers decoded."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=number)) as session:

        async def ask(request: Request) -> None:
            path, payload = request
            async with session.post(f"http://{address}{path}", json=payload) as response:
                assert len((await response.json())["choices"]) == len(payload["prompt"])

        await ask(requests[0])
        return await in_flight(number, ask, requests[1:])


def served_ratios(
    judges: Sequence[str], levels: Sequence[int], rounds: int, hidden: int, layers: int
) -> dict[str, Any]:
    """Throughput and latency with and without us, by judge and number in flight."""
    found: dict[str, Any] = {judge: {} for judge in judges}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model, _ = make_models(folder, hidden=hidden, layers=layers)
        address = stack.enter_context(serve(model, *SERVER)).address
        for judge, number in ((judge, number) for judge in judges for number in levels):
            found[judge][str(number)] = level = against(judge, number, rounds, model, address)
            print(f"{judge}, {number} in flight: {json.dumps(level)}", file=sys.stderr, flush=True)
    return found | {"ratio": min(level["ratio"] for judge in judges for level in found[judge].values())}


def against(judge: str, number: int, rounds: int, model: Path, address: str) -> dict[str, Any]:
    """In alternating order, after a short round that warms up; every text is new to the server's prefix cache."""
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    end = time.monotonic() + LEVEL_S
    for turn in range(rounds + 1):
        if turn > 2 and time.monotonic() > end:
            break
        count = max(32, min(4 * number, 512)) if turn else 8
        texts = {way: [f"{number} {turn} {way} {i}: {REFUSAL}" for i in range(count + 1)] for way in rates}
        requests = asyncio.run(recorded(model, JUDGES[judge], texts["bare"]))
        ways = {
            "bare": partial(bare, address, number, requests),
            "ours": partial(ours, address, JUDGES[judge], number, texts["ours"]),
        }
        for way in sorted(ways, reverse=turn % 2 == 0):
            whole, each = asyncio.run(ways[way]())
            if turn:
                rates[way].append(count / whole)
                seconds[way] += each
    latency = {way: {f"p{share}": percentile(each, share) for share in (50, 99)} for way, each in seconds.items()}
    return report(rates, "ours", "bare") | {"rows": count, "latency_ms": latency}


def percentile(seconds: list[float], share: int) -> float:
    """In milliseconds."""
    return round(1e3 * sorted(seconds)[math.ceil(share / 100 * len(seconds)) - 1], 1)


def report(rates: dict[str, list[float]], ours: str, reference: str) -> dict[str, Any]:
    ratios = [rate / base for rate, base in zip(rates[ours], rates[reference], strict=True)]
    return {
        "per_s": {way: round(statistics.median(values), 1) for way, values in rates.items()},
        "ratios": [round(value, 2) for value in ratios],
        "ratio": statistics.median(ratios),
    }


def main() -> int:
    """Measure, print JSON, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--model", type=Path, help="a judge of real size, for in_process: SmolLM2-135M-Instruct")
    parser.add_argument("--responses", type=int, default=32)
    parser.add_argument("--judges", nargs="+", choices=JUDGES, default=list(JUDGES), help="for served")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[8, 64], metavar="N", help="rows, for served")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers end with us
    parts = {
        "facets": lambda: facets(args.responses, args.hidden, args.layers, args.rounds),
        "in_process": lambda: in_process(args.model, max(1, args.responses // 16), args.rounds),
        "served": lambda: served_ratios(args.judges, args.in_flight, args.rounds, args.hidden, args.layers),
    }
    measured = {
        part: parts[part]() for part in args.parts or (name for name in parts if name != "in_process" or args.model)
    }
    print(json.dumps(measured, indent=2))
    return 0 if all(found["ratio"] >= TARGETS[part] for part, found in measured.items()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
