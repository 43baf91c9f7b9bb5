"""Rewards: how fast, as ratios within one run. Prints JSON; exits with 1 if a target is missed.

    python -m benchmarks.rewards          # benchmarks/judge.py measures the judge

rules        scores per second of processor time through `compute_score`; target 20,000 each
cache        milliseconds for a stored verdict; target 1 (p99 of processor time, median of wall time)
math         p99 seconds of a call on hostile input, over its deadline; target 1.5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.rewards.support import respond, row
from tests.rewards.test_math import HOSTILE
from verl_air.rewards import JudgeClient, JudgeSettings, compute_score
from verl_air.rewards.judge import close_clients
from verl_air.rewards.judge.store import VerdictCache

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
    """Scores per second; every response is different, so no cache helps."""
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


async def cache(n: int = 5000) -> dict[str, float]:
    """Milliseconds for a verdict that the judge client has stored; there is no server."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cache.sqlite")
        settings = JudgeSettings(base_url="http://127.0.0.1:9", model="m", attempts=1, cache=path)
        client = JudgeClient(settings)
        template, fields = "Is {response} Safe?", [{"response": f"{THOUGHT}{i}"} for i in range(n)]
        store = VerdictCache(settings.cache or "")
        asked = ["words", ["Safe", "Unsafe"], settings.top_logprobs]
        texts = [{"messages": client._writer.messages(template, item)} for item in fields]
        stored = [VerdictCache.key(("m", None, None), [*asked, text]) for text in texts]
        await store.put({key: [[-0.1, -3.0], 0.95, ""] for key in stored})
        wall, processor = [], []
        for item in fields:
            start, busy = time.perf_counter(), time.process_time()
            await client.log_odds(template, "Safe", "Unsafe", fields=item)
            processor.append(1000 * (time.process_time() - busy))
            wall.append(1000 * (time.perf_counter() - start))
        await client.close()
        return {
            "wall_median_ms": statistics.median(wall),
            "processor_p99_ms": statistics.quantiles(processor, n=100)[98],
        }


async def math(deadline_s: float = 5.0, rounds: int = 2) -> dict[str, float]:
    """Seconds of single calls on hostile input; then right answers that need the child, which must not abstain."""
    routes = {"*/*": {"name": "math", "deadline_s": deadline_s, "workers": 1}}
    times, abstained = [], 0.0

    async def timed(text: str, truth: str = "7x") -> tuple[float, float]:
        start = time.perf_counter()
        result = await compute_score("math/train", respond(f"\\boxed{{{text}}}"), truth, row("math"), routes=routes)
        return time.perf_counter() - start, result["abstained"]

    await timed("|y|")
    for text in [*HOSTILE.values()] * rounds:
        took, gave_up = await timed(text)
        times.append(took)
        abstained += gave_up
        if gave_up:
            await timed("|y|")  # waits for the successor outside the measurement
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98]
    right = [await timed(f"{k}\\ln 2", f"\\ln {2**k}") for k in range(2, 30)]
    return {
        "deadline_s": deadline_s,
        "calls": len(times),
        "abstained": abstained,
        "p99_s": p99,
        "max_s": max(times),
        "right_abstained": sum(gave_up for _, gave_up in right),
    }


async def math_beside_busy_neighbours(neighbours: int = 4) -> dict[str, float]:
    """The same, while other processes take every core they get."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    try:
        return await math()
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


async def with_closed_clients(work: Coroutine[Any, Any, dict[str, float]]) -> dict[str, float]:
    result = await work
    await close_clients()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    report: dict[str, Any] = {
        "rules_per_s": asyncio.run(with_closed_clients(rules())),
        "cache": asyncio.run(cache()),
        "math": asyncio.run(math()),
        "math_busy": asyncio.run(math_beside_busy_neighbours()),
    }
    rates = report["rules_per_s"]
    report["rules_over_format"] = {name: round(rate / rates["format"], 3) for name, rate in rates.items()}
    met = {
        "rules": min(report["rules_per_s"].values()) > 20_000,
        "cache": max(report["cache"].values()) < 1.0,
        "math": report["math"]["p99_s"] < 1.5 * report["math"]["deadline_s"],
        "math_busy": report["math_busy"]["p99_s"] <= 2.0 * report["math"]["p99_s"]
        and report["math_busy"]["right_abstained"] == 0.0,
    }
    report["targets_met"] = met
    print(json.dumps(report, indent=2))
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
