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

Part `guard`: rows per second of `guard_judge` (HarmBench's classifier as the guard) through compute_score, against the
same prompts posted to the same server as they are, equally many in flight. Target: at least 0.8 of it.

Each round asks about new responses in every way, one after the other, so that other load of the machine affects all
of them; a ratio is the median over rounds of a way's rate to its reference in the same round.
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

import aiohttp

from reward_fns.guard_judge import load_guard
from reward_fns.safety_judge import FACETS, load_audit
from tests.rewards.forward_pass import ForwardPass
from tests.rewards.support import row
from tests.rewards.tiny_judge import MAX_LENGTH, make_models, make_tokenizer, serve
from verl_air.rewards import JudgeClient, JudgeSettings, compute_score
from verl_air.rewards.judge import close_clients
from verl_air.rewards.judge.in_process import InProcessJudge
from verl_air.rewards.judge.prompts import PromptWriter
from verl_air.rewards.judge.verdicts import completion_question, read_completions

TARGETS = {"facets": 5.0, "in_process": 5.0, "guard": 0.8}
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
    tokens = len(judge._encode(prompts[0], fields))
    return report(rates, "in_process", "looped") | {"prompt_tokens": tokens, "max_difference_of_log_odds": apart}


async def guarded(address: str, texts: list[str], in_flight: int) -> list[Any]:
    """Whether `guard_judge` abstains, for each text."""
    verls = {"reward_router_address": address, "reward_model_tokenizer": make_tokenizer()}
    settings = {"routes": {"*": {"name": "guard_judge", "guard": "harmbench_cls"}}, **verls}
    settings["judge"] = {"min_mass": 0.0, "max_concurrency": in_flight}
    extra = row("safety", "open", request="How?")
    found = await asyncio.gather(*(compute_score("safety/train", text, "", extra, **settings) for text in texts))
    await close_clients()
    return [result["abstained"] for result in found]


async def posted(address: str, payloads: list[dict[str, Any]], in_flight: int) -> list[Any]:
    """The same requests, sent as they are."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:

        async def one(payload: dict[str, Any]) -> Any:
            async with session.post(f"http://{address}/v1/completions", json=payload) as response:
                return await response.json()

        return list(await asyncio.gather(*map(one, payloads)))


def guard(responses: int, hidden: int, layers: int, rounds: int, in_flight: int = 64) -> dict[str, Any]:
    """Rows per second with and without us; every text is new to the server's prefix cache, in one of two orders."""
    found, rates = load_guard("harmbench_cls"), defaultdict(list)
    tokenizer = make_tokenizer()
    writer = PromptWriter(tokenizer, {}, 8000)
    assert writer.tokens is not None
    spellings, words = writer.tokens.spellings(list(found.harm)), list(found.harm)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model, _ = make_models(folder, hidden=hidden, layers=layers)
        server = stack.enter_context(serve(model, *SERVER))
        for number in range(rounds + 1):  # the first warms up
            texts = {way: [f"{number} {way} {i}: {REFUSAL}" for i in range(4 * responses)] for way in ("bare", "ours")}
            payloads = []
            for text in texts["bare"]:
                fields = {"request": "How?", "response": text}
                ids = writer.encode(found.prompts()[0], fields, MAX_LENGTH, how=found.rendering())
                payloads.append(completion_question(str(model), [ids], 20, spellings))
            ways = {
                "bare": lambda payloads=payloads: asyncio.run(posted(server.address, payloads, in_flight)),
                "ours": lambda texts=texts["ours"]: asyncio.run(guarded(server.address, texts, in_flight)),
            }
            for way in sorted(ways, reverse=number % 2 == 0):
                start = time.perf_counter()
                answers = ways[way]()
                if number:
                    rates[way].append(len(answers) / (time.perf_counter() - start))
                if way == "ours":
                    assert not any(answers), "a row abstained"
                else:
                    assert all("choices" in answer for answer in answers), answers[0]
                    read_completions(answers[0], 1, words, spellings)
    return report(rates, "ours", "bare") | {"rows": 4 * responses, "in_flight": in_flight}


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    parts = {
        "facets": lambda: facets(args.responses, args.hidden, args.layers, args.rounds),
        "in_process": lambda: in_process(args.model, max(1, args.responses // 16), args.rounds),
        "guard": lambda: guard(args.responses, args.hidden, args.layers, args.rounds),
    }
    measured = {
        part: parts[part]() for part in args.parts or (name for name in parts if name != "in_process" or args.model)
    }
    print(json.dumps(measured, indent=2))
    return 0 if all(found["ratio"] >= TARGETS[part] for part, found in measured.items()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
