"""One actor update of verl's FSDP2 engine: stock, with AIR, and with a second forward pass for the auxiliary loss.

    python benchmarks/actor_update.py                  # three sizes, some minutes
    python benchmarks/actor_update.py --sizes small --repeats 5
    python benchmarks/actor_update.py --device cuda    # bf16, random weights of the shapes of Qwen2.5 0.5B and 1.5B

Times are paired: in one process, on one model and batch, the variants take turns, and a ratio is the median over the
rounds of a variant's time to stock's in the same round. On a CPU peak memory needs a process of its own for each
variant; on a GPU it is that of torch's allocator, read after each update. ``term`` is the auxiliary loss timed by
itself, forward and backward down to the log-probs, as a share of stock's update: a direct reading where rounds scatter.
Limits: AIR at most 1.01 of stock in time and in memory. Exit status 1 if one is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from tests.engines.batch import make_batch
from tests.engines.fsdp import Fsdp2
from tests.engines.tiny_model import save_tiny_model
from tests.engines.training import Job, actor_config, columns, make_worker

LIMIT = 1.01
# device -> name -> (hidden, layers, vocabulary, tokens a response); 24 rows: 2 intents x 4 prompts x 3 completions
SIZES = {
    "cpu": {"small": (128, 4, 4096, 128), "medium": (256, 8, 8192, 256), "large": (512, 8, 16384, 256)},
    "cuda": {"0.5b": (896, 24, 151936, 512), "1.5b": (1536, 28, 151936, 512)},
}
QWEN: dict[str, dict[str, Any]] = {  # the rest of the shape
    "0.5b": {"intermediate_size": 4864, "num_attention_heads": 14, "tie_word_embeddings": True},
    "1.5b": {"intermediate_size": 8960, "num_attention_heads": 12, "tie_word_embeddings": True},
}
VARIANTS = ("stock", "air", "second forward")


class Update:
    """A worker with a batch, and the three losses."""

    def __init__(self, device: str, size: str, folder: Path) -> None:
        self.gpu = device == "cuda"
        if not self.gpu:
            torch.set_num_threads(1)
        hidden, layers, vocabulary, length = SIZES[device][size]
        save_tiny_model(folder, layers=layers, hidden=hidden, vocabulary=vocabulary, **QWEN.get(size, {}))
        reward_ZSK = np.random.default_rng(0).choice([-1.0, 1.25], size=(2, 4, 3))
        batch = make_batch(reward_ZSK, response_length=(length, length))
        backend = Fsdp2(param_dtype="bf16" if self.gpu else "fp32")
        self.job = Job(model=str(folder), batch=batch, backend=backend, micro_batch=6, learning_rate=1e-6)
        self.worker = make_worker(self.job)

    def loss(self, variant: str) -> Any:
        from verl.workers.utils.losses import ppo_loss

        from verl_air.training.actor_loss import air_actor_loss

        config = actor_config(self.job)
        if variant == "stock":
            return partial(ppo_loss, config=config)
        if variant == "air":
            return partial(air_actor_loss, config=config, air=self.job.air)
        return partial(_second_forward_loss, config=config, air=self.job.air, module=self.worker.engine.module)

    def seconds(self, variant: str) -> float:
        """Of one update. Processor seconds without a GPU: a busy machine measures what an idle one does."""
        self.worker.set_loss_fn(self.loss(variant))
        data = columns(self.job, self.worker.engine)
        started = self._clock()
        self.worker.train_mini_batch(data)
        return self._clock() - started

    def _clock(self) -> float:
        if not self.gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def term_seconds(self) -> float:
        """Of the auxiliary loss in one update: forward, and backward down to the log-probs that it shares."""
        from verl.workers.utils.losses import ppo_loss

        from verl_air.training.actor_loss import auxiliary_loss

        config = actor_config(self.job)
        spent: list[float] = []

        def loss(model_output: Any, data: Any, dp_group: Any = None) -> Any:
            result = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
            shared = {"log_probs": model_output["log_probs"].detach().requires_grad_()}
            started = self._clock()
            auxiliary_loss(config, shared, data, self.job.air).backward()
            spent.append(self._clock() - started)
            return result

        self.worker.set_loss_fn(loss)
        self.worker.train_mini_batch(columns(self.job, self.worker.engine))
        return sum(spent)

    def gpu_peak(self, variant: str) -> int:
        """Peak of the GPU's allocator in an update, in bytes above what the worker holds between updates."""
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.seconds(variant)
        return torch.cuda.max_memory_allocated() - before


def _second_forward_loss(
    config: Any, model_output: Any, data: Any, dp_group: Any = None, *, air: Any, module: Any
) -> Any:
    """The design that ours avoids: the auxiliary term from a forward pass of its own."""
    from verl.workers.utils.losses import ppo_loss

    from verl_air.training.actor_loss import auxiliary_loss

    loss, metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
    ids = data["input_ids"]
    padded_NT = ids.to_padded_tensor(0)
    logits_NTV = module(input_ids=padded_NT, use_cache=False).logits
    logp_NT = logits_NTV[:, :-1].log_softmax(-1).gather(-1, padded_NT[:, 1:, None])[..., 0]
    logp_NT = torch.nn.functional.pad(logp_NT, (0, 1))  # verl's rows: the log-prob of the next token at each place
    lengths = ids.offsets().diff().tolist()
    jagged = torch.nested.as_nested_tensor(
        [row[:length] for row, length in zip(logp_NT, lengths, strict=True)], layout=torch.jagged
    )
    return loss + air.coef * auxiliary_loss(config, {"log_probs": jagged}, data, air), metrics


def timed(device: str, size: str, repeats: int) -> dict[str, Any]:
    """Seconds of each variant, by round (the first round warms up and is left out), and on a GPU peak memory."""
    _alone(device)
    with tempfile.TemporaryDirectory() as folder:
        update = Update(device, size, Path(folder))
        rounds = [{variant: update.seconds(variant) for variant in VARIANTS} for _ in range(repeats + 1)]
        term = [update.term_seconds() for _ in range(4)][1:]
        peaks = {variant: update.gpu_peak(variant) for variant in VARIANTS} if update.gpu else None
    seconds = {variant: [one[variant] for one in rounds[1:]] for variant in VARIANTS}
    return {"seconds": seconds, "term": term, "peaks": peaks}


def peak(size: str, variant: str) -> float:
    """Peak memory of a process that makes three updates on the CPU, in bytes above what it held before the first."""
    _alone("cpu")
    with tempfile.TemporaryDirectory() as folder:
        update = Update("cpu", size, Path(folder))
        before = _resident()
        for _ in range(3):
            update.seconds(variant)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _alone(device: str) -> None:
    """A world of one rank."""
    rendezvous = tempfile.mktemp()  # the file must not exist yet
    if device == "cpu":
        os.environ.update(VERL_PLATFORM="cpu", OMP_NUM_THREADS="1")
    os.environ.update(
        RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0",
        DIST_INIT_METHOD=f"file://{rendezvous}", TORCHDYNAMO_DISABLE="1",
    )  # fmt: skip


def in_child(*arguments: str) -> Any:
    """What this file prints as its last line when called with these arguments."""
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def summary(device: str, size: str, repeats: int) -> dict[str, Any]:
    """Median ratios with quartiles, and ratios of peak memory."""
    measured = in_child("--device", device, "--timed", size, "--repeats", str(repeats))
    seconds = measured["seconds"]
    peaks = measured["peaks"] or {
        variant: median(in_child("--peak", size, variant) for _ in range(3)) for variant in VARIANTS
    }
    result: dict[str, Any] = {"stock_s": round(median(seconds["stock"]), 3), "stock_mib": round(peaks["stock"] / 2**20)}
    result["term"] = round(median(measured["term"]) / median(seconds["stock"]), 5)
    for variant in VARIANTS[1:]:
        ratios = [ours / stock for ours, stock in zip(seconds[variant], seconds["stock"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        result[variant] = {
            "time": round(median(ratios), 4),
            "time_quartiles": [round(low, 4), round(high, 4)],
            "memory": round(peaks[variant] / peaks["stock"], 4),
        }
    return result


def main() -> int:
    """Measure, print JSON, and say whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(SIZES), default="cpu")
    parser.add_argument("--sizes", nargs="+", help="all by default")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--timed", help=argparse.SUPPRESS)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.timed:
        print(json.dumps(timed(args.device, args.timed, args.repeats)))
        return 0
    if args.peak:
        print(json.dumps(peak(*args.peak)))
        return 0
    sizes = args.sizes or list(SIZES[args.device])
    if unknown := sorted(set(sizes) - set(SIZES[args.device])):
        parser.error(f"--sizes {' '.join(unknown)}: on {args.device} there are {', '.join(SIZES[args.device])}")
    measured = {size: summary(args.device, size, args.repeats) for size in sizes}
    print(json.dumps(measured, indent=2))
    broken = 0
    for size, result in measured.items():
        for what in ("time", "memory"):
            if (ratio := result["air"][what]) > LIMIT:
                print(f"{size}: {what} of AIR is {ratio} of stock (limit {LIMIT})", file=sys.stderr)
                broken = 1
    return broken


if __name__ == "__main__":
    raise SystemExit(main())
