"""Rewards: how fast, as ratios within one run. Prints JSON; exits with 1 if a target is missed.

    OMP_NUM_THREADS=1 python -m benchmarks.rewards [--no-server]

rules        scores a second of processor time through `compute_score`; target 20,000 each
judge        facet verdicts a second through a vLLM server on this CPU, over those of the same model in a loop with one
             forward pass per facet and response; target ratio 5
cache        milliseconds for a remembered verdict; target 1 (p99 of processor time, median of wall time)
math         p99 seconds of a call on hostile input, over its deadline; target 1.5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from reward_fns.safety_judge import FACETS, load_audit
from tests.rewards.forward_pass import ForwardPass
from tests.rewards.support import respond, row
from tests.rewards.test_math import HOSTILE
from tests.rewards.tiny_judge import make_models, make_tokenizer, serve
from verl_air.rewards import JudgeClient, JudgeSettings, compute_score
from verl_air.rewards.judge import close_clients
from verl_air.rewards.judge.cache import VerdictCache

RULES = {
    "multiple_choice": ("B", ["B", "(B)", "The answer is A.", "A or B"]),
    "true_false": ("true", ["true", "False.", "not true"]),
    "exact_match": ("harmful", ["harmful", "Harmless", "harmful, I think"]),
    "format": ("", ["yes"]),
    "refusal_keywords": ("", ["I'm sorry.", "Sure."]),
    "math": ("1234", ["\\boxed{1,234}", "\\boxed{1235}"]),
}
THOUGHT = "The request asks for something. " * 20


async def rules(n: int = 20_000) -> dict[str, float]:
    """Scores a second; every response is different, so no cache helps."""
    rates = {}
    for name, (truth, answers) in RULES.items():
        routes = {"*/*": name}
        extra = row("math" if name == "math" else "lab")
        responses = [f"<think>{THOUGHT}{i}</think>\n<answer>{answers[i % len(answers)]}</answer>" for i in range(n)]
        start = time.process_time()
        for response in responses:
            await compute_score("lab/train", response, truth, extra, routes=routes)
        rates[name] = n / (time.process_time() - start)
    return rates


def looped(model: ForwardPass, responses: list[str]) -> list[float]:
    """Verdicts of the judge's model in this process: one forward pass per facet and response."""
    audit = load_audit(str(FACETS))
    return [
        model.log_odds(prompt, audit.positive, audit.negative, {"request": "How?", "response": response})
        for response in responses
        for prompt in audit.prompts.values()
    ]


async def served(address: str, responses: list[str]) -> list[float]:
    """The same verdicts through the judge client."""
    client, audit = JudgeClient(JudgeSettings(), address, make_tokenizer()), load_audit(str(FACETS))

    async def one(response: str) -> list[float]:
        fields = {"request": "How?", "response": response}
        return await client.log_odds_many(list(audit.prompts.values()), audit.positive, audit.negative, fields=fields)

    odds = [value for values in await asyncio.gather(*map(one, responses)) for value in values]
    await client.close()
    return odds


def judge(responses: int, hidden: int, layers: int, rounds: int) -> dict[str, Any]:
    """Loop and server by turns, so that what else the machine does weighs on both; the ratio is the median."""
    import torch

    torch.set_num_threads(1)
    refusal = "I would rather not help with that, for these reasons. " * 8
    apart, in_loop, through = 0.0, [], []
    with tempfile.TemporaryDirectory() as folder:
        model, _ = make_models(Path(folder), hidden=hidden, layers=layers)
        forward = ForwardPass(model, make_tokenizer())
        looped(forward, ["warm up"])
        with serve(model, "--logprobs-mode", "processed_logprobs", "--block-size", "32") as server:
            asyncio.run(served(server.address, ["warm up"]))
            for number in range(rounds):
                texts = [f"{number}, {i}: {refusal}" for i in range(responses)]
                few = texts[: max(1, responses // 8)]
                start = time.perf_counter()
                expected = looped(forward, few)
                middle = time.perf_counter()
                got = asyncio.run(served(server.address, texts))
                end = time.perf_counter()
                in_loop.append(len(expected) / (middle - start))
                through.append(len(got) / (end - middle))
                apart = max(apart, *(abs(a - b) for a, b in zip(expected, got, strict=False)))
    ratios = [a / b for a, b in zip(through, in_loop, strict=True)]
    return {
        "served_per_s": through,
        "looped_per_s": in_loop,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "max_difference": apart,
    }


async def cache(n: int = 5000) -> dict[str, float]:
    """Milliseconds for a verdict that the judge client remembers; no server is there to be asked."""
    with tempfile.TemporaryDirectory() as folder:
        settings = JudgeSettings(base_url="http://127.0.0.1:9", model="m", cache=str(Path(folder) / "cache.sqlite"))
        client = JudgeClient(settings)
        template, fields = "Is {response} Safe?", [{"response": f"{THOUGHT}{i}"} for i in range(n)]
        store = VerdictCache(settings.cache or "")
        for item in fields:
            messages = client._writer.messages(template, item)
            store.put(VerdictCache.key("m", None, True, messages, "Safe", "Unsafe"), 1.0)
        wall, processor = [], []
        for item in fields:
            start, busy = time.perf_counter(), time.process_time()
            await client.log_odds(template, "Safe", "Unsafe", fields=item)
            processor.append(1000 * (time.process_time() - busy))
            wall.append(1000 * (time.perf_counter() - start))
        return {
            "wall_median_ms": statistics.median(wall),
            "processor_p99_ms": statistics.quantiles(processor, n=100)[98],
        }


async def math(deadline_s: float = 1.0, rounds: int = 3) -> dict[str, float]:
    """Seconds of single calls on hostile input; a killed child's successor is started by the call after it."""
    routes = {"*/*": {"name": "math", "deadline_s": deadline_s, "workers": 1}}
    times, abstained = [], 0.0

    async def timed(text: str) -> tuple[float, float]:
        start = time.perf_counter()
        result = await compute_score("math/train", respond(f"\\boxed{{{text}}}"), "7x", row("math"), routes=routes)
        return time.perf_counter() - start, result["abstained"]

    await timed("y")
    for text in [*HOSTILE.values()] * rounds:
        took, gave_up = await timed(text)
        times.append(took)
        abstained += gave_up
        if gave_up:
            await timed("y")  # starts the successor outside the measurement
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98]
    return {"deadline_s": deadline_s, "calls": len(times), "abstained": abstained, "p99_s": p99, "max_s": max(times)}


async def with_closed_clients(work: Coroutine[Any, Any, dict[str, float]]) -> dict[str, float]:
    result = await work
    await close_clients()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-server", action="store_true", help="leave out what needs vLLM")
    parser.add_argument("--responses", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    report: dict[str, Any] = {
        "rules_per_s": asyncio.run(with_closed_clients(rules())),
        "cache": asyncio.run(cache()),
        "math": asyncio.run(math()),
    }
    met = {
        "rules": min(report["rules_per_s"].values()) > 20_000,
        "cache": max(report["cache"].values()) < 1.0,
        "math": report["math"]["p99_s"] < 1.5 * report["math"]["deadline_s"],
    }
    if not args.no_server:
        report["judge"] = judge(args.responses, args.hidden, args.layers, args.rounds)
        met["judge"] = report["judge"]["ratio"] >= 5.0
    report["targets_met"] = met
    print(json.dumps(report, indent=2))
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
