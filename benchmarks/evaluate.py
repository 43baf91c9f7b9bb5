"""How fast `verl-air evaluate --model` generates, compared with plain vLLM on the same prompts.

    python -m benchmarks.evaluate --rows 48 --tokens 64

Two processes, each with an engine of its own, take turns, so that other load of the machine affects both:

plain   `LLM.chat` with the engine's settings of `evaluate` and vLLM's own number of threads; nothing is stored
ours    all that `evaluate --model` does once its engine is up: check the routes, encode the prompts, generate with a
        seed per completion, score and store each row while others are generated, and put the file into order

A rate is tokens of the responses per second; the ratio is the median over rounds. Target: at least 0.9. The model is
SmolLM2-135M-Instruct, fetched as `make smollm2` does, since generation dominates there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from verl_air.cpu.environment import DEFAULTS, VLLM_DEFAULTS
from verl_air.data.schema import make_row, read_rows, write_rows
from verl_air.evaluation.generate import generate_rollouts
from verl_air.evaluation.records import JsonLines
from verl_air.evaluation.vllm_generator import SamplingSettings, VllmGenerator

TARGET = 0.9
WAYS = ("plain", "ours")
MODEL = Path(__file__).parents[1] / "runs" / "smollm2" / "model"
REWARDS = {"routes": {"*": "exact_match"}, "format": {"style": "plain"}}
THREADS = "OMP_NUM_THREADS"


def write_questions(path: Path, rows: int) -> Path:
    """Arithmetic in words, 40 to 60 tokens each; every question is an intent with one open row."""
    return write_rows(
        path,
        (
            make_row(
                prompt=f"A farmer has {i + 3} fields with {7 * i + 2} trees each, and every tree gives {i % 9 + 2} "
                "baskets of apples a year. How many baskets are that in two years? Explain each step.",
                ground_truth=str(2 * (i + 3) * (7 * i + 2) * (i % 9 + 2)),
                intent_id=f"farm{i}",
                role="open",
                context="plain",
                domain="arithmetic",
                split="id",
                index=i,
            )
            for i in range(rows)
        ),
    )


def plain(model: Path, data: Path, tokens: int) -> Callable[[int], list[str]]:
    """vLLM without us. It has to be told that it runs on a CPU."""
    os.environ.update({name: value for name, value in (DEFAULTS | VLLM_DEFAULTS).items() if name != THREADS})
    from vllm import LLM, SamplingParams

    llm = LLM(str(model), **VllmGenerator.ON_CPU)
    prompts = [row["prompt"] for row in read_rows(data)]
    sampling = SamplingParams(temperature=1.0, max_tokens=tokens)
    return lambda number: [found.outputs[0].text for found in llm.chat(prompts, sampling, use_tqdm=False)]


def ours(model: Path, data: Path, tokens: int) -> Callable[[int], list[str]]:
    """The command's own generator, kept over the rounds."""
    from verl_air.cli.evaluate import vllm_generator

    generator = vllm_generator(model, None, 1)

    def make(number: int) -> list[str]:
        out, sampling = data.with_name(f"{number}.jsonl"), SamplingSettings(max_tokens=tokens, seed=number)
        generate_rollouts(model, [data], out, REWARDS, sampling, generator=lambda: generator)
        return [row["output"] for _, row in JsonLines(out)]

    return make


def take_turns(turns: Connection, way: str, model: Path, data: Path, tokens: int) -> None:
    """Answer each number with the tokens and seconds of a round; None ends it."""
    from transformers import AutoTokenizer

    make = {"plain": plain, "ours": ours}[way](model, data, tokens)
    tokenizer = AutoTokenizer.from_pretrained(model)
    turns.send("ready")
    for number in iter(turns.recv, None):
        start = time.perf_counter()
        texts = make(number)
        seconds = time.perf_counter() - start
        turns.send((sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])), seconds))


@contextmanager
def engine(way: str, *arguments: object) -> Iterator[Connection]:
    """A process that takes turns."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=take_turns, args=(there, way, *arguments))
    process.start()
    there.close()
    try:
        assert here.recv() == "ready"
        yield here
        here.send(None)
    finally:
        process.join(60)
        process.terminate()


def main() -> int:
    """Measure, print JSON, and say whether the target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a Hugging Face folder (default: SmolLM2, fetched)")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if (model := args.model) is None:
        from verl_air.playground.smollm2 import fetch_model

        model = fetch_model(MODEL)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    load = []
    with tempfile.TemporaryDirectory() as folder:
        arguments = (model, write_questions(Path(folder) / "questions.parquet", args.rows), args.tokens)
        with engine("plain", *arguments) as a, engine("ours", *arguments) as b:
            turns = dict(zip(WAYS, (a, b), strict=True))
            for number in range(args.rounds + 1):  # the first warms up
                for way in sorted(WAYS, reverse=number % 2 == 0):
                    turns[way].send(number)
                    tokens, seconds = turns[way].recv()
                    print(f"round {number}, {way}: {tokens} tokens in {seconds:.1f} s", file=sys.stderr, flush=True)
                    if number:
                        rates[way].append(tokens / seconds)
                load.append(round(os.getloadavg()[0], 1))
    ratios = [mine / vllms for mine, vllms in zip(rates["ours"], rates["plain"], strict=True)]
    measured = {
        "rows": args.rows,
        "tokens_per_s": {way: round(statistics.median(values), 1) for way, values in rates.items()},
        "ratios": [round(value, 3) for value in ratios],
        "load": load,
        "ratio": round(statistics.median(ratios), 3),
    }
    print(json.dumps(measured, indent=2))
    return 0 if measured["ratio"] >= TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
