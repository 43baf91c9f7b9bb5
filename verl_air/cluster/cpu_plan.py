"""Without a GPU: sizes that follow the model (``recipes/hardware/cpu``), and what a step takes in memory and time.

The sizes are OmegaConf resolvers, ``${air_cpu.NAME:...}``, so that a recipe shows where they come from and may set its
own (``verl_air.compose.register_resolvers``). All computation is in fp32 and weights are whole on each rank's machine.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from omegaconf import DictConfig

from verl_air.cluster.memory_plan import MemoryPhase
from verl_air.cluster.model_shapes import ModelShapes, find_shapes
from verl_air.cluster.trainer_memory import MemoryPart, layer_activation_bytes
from verl_air.cluster.vllm_memory import GIB, VllmPool, read_vllm_pools
from verl_air.errors import ConfigError

MIB = 2**20
WIDTH = 4  # bytes of a number in fp32
MICRO_BATCH_BYTES = 2 * GIB  # larger micro-batches are no faster on a CPU
LOGIT_COPIES = 5  # logits, scaled by the temperature, log-softmax, their gradients
CACHE_BYTES = (64 * MIB, GIB)  # of a KV cache: least and most that is taken unasked
BLOCK = 128  # tokens of a block of vLLM's CPU cache
# Measured on the quickstart, whose model is tiny: 10.6 GiB with two engines.
BASE_BYTES, ENGINE_BYTES = 6 * GIB, 2 * GIB
RAY_THRESHOLD = 0.95  # of the machine's memory; above it Ray kills workers
EFFICIENCY = 0.45  # of a large matrix product's speed: a run of SmolLM2-135M reached 85 of 182 GFLOP/s
LONG_STEP_S = 600.0


def _shapes(model: str) -> ModelShapes | None:
    """None where the recipe's check will say that there is no such model."""
    try:
        return find_shapes(model, approximate=True)
    except ConfigError:
        return None


def bucket_megabytes(model: str) -> int:
    """Megabytes of the buffer through which weights reach vLLM: it must hold the largest tensor."""
    shapes = _shapes(model)
    return 16 if shapes is None else max(16, math.ceil(WIDTH * shapes.largest_tensor / MIB) + 1)


def kv_cache_bytes(model: str, sequences: int | None, longest: int | None, prompt: int, response: int) -> int:
    """Bytes of vLLM's KV cache: all sequences that it runs at a time, within bounds; one always fits."""
    shapes = _shapes(model)
    if shapes is None:
        return CACHE_BYTES[0]
    length = math.ceil((longest or prompt + response) / BLOCK) * BLOCK + BLOCK
    sequence = shapes.kv_bytes_per_token(width=WIDTH) * length
    return max(CACHE_BYTES[0], sequence, min(CACHE_BYTES[1], (sequences or 1) * sequence))


def micro_batch(model: str, mini_batch: int, completions: int, ranks: int, prompt: int, response: int) -> int:
    """The largest divisor of a rank's rows whose activations take at most ``MICRO_BATCH_BYTES``."""
    shapes, rows = _shapes(model), max(mini_batch * completions // ranks, 1)
    fitting = rows if shapes is None else int(MICRO_BATCH_BYTES / (token_bytes(shapes) * (prompt + response)))
    return max(size for size in range(1, rows + 1) if not rows % size and size <= max(fitting, 1))


def token_bytes(shapes: ModelShapes) -> float:
    """Bytes that one token of a micro-batch keeps for the backward pass, padding included."""
    return 2 * layer_activation_bytes(shapes) * shapes.layers + WIDTH * LOGIT_COPIES * shapes.vocabulary


@dataclass(frozen=True)
class CpuSpeed:
    """What was measured: fp32 operations and bytes of memory per second, with the threads that a worker gets."""

    flops: float
    bandwidth: float
    threads: int


@dataclass(frozen=True)
class CpuPlan:
    """Memory of this machine, by part, and seconds of a step, by phase. ``faults``: what cannot fit."""

    phases: tuple[MemoryPhase, ...]
    machine_bytes: float
    seconds: Mapping[str, float]
    steps: int
    speed: CpuSpeed
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """Memory and time in one line."""
        needed, step = self.phases[0].bytes / GIB, sum(self.seconds.values())
        return (
            f"estimated {needed:.1f} of this machine's {self.machine_bytes / GIB:.1f} GiB; at most about "
            f"{_duration(step)} per step, {_duration(step * self.steps)} for {self.steps} steps"
        )

    def table(self) -> list[str]:
        """The plan as lines of text, but for its faults."""
        (phase,) = self.phases
        lines = ["", f"{phase.name}: GiB of {self.machine_bytes / GIB:.4g}"]
        lines += [f"  {part.name:<32}{part.bytes / GIB:>7.1f}  {part.note}" for part in phase.parts]
        lines.append(f"  {'together':<32}{phase.bytes / GIB:>7.1f}")
        lines += [
            "",
            f"seconds of a step, with all lengths at their limit ({self.speed.flops / 1e9:.0f} GFLOP/s measured)",
        ]
        lines += [f"  {name:<32}{seconds:>7.0f}" for name, seconds in self.seconds.items()]
        return lines + [f"note: {note}" for note in self.notes]


def plan_cpu(config: DictConfig, machine_bytes: float, speed: CpuSpeed, available_bytes: float) -> CpuPlan:
    """Plan a composed recipe for a machine without a GPU.

    Raises:
        ConfigError: a model's sizes cannot be found.
    """
    pools = read_vllm_pools(config)
    shapes = {pool: find_shapes(pool.model, approximate=True) for pool in pools}
    rollouts = (config.actor_rollout_ref.rollout, config.reward.reward_model.rollout)
    caches = [float(rollout.engine_kwargs.vllm.get("kv_cache_memory_bytes", None) or 4 * GIB) for rollout in rollouts]
    phase = MemoryPhase("a step", tuple(_memory(config, shapes, caches)))
    seconds, notes = dict(_seconds(config, shapes, speed)), []
    if phase.bytes > available_bytes:
        notes.append(f"only {available_bytes / GIB:.1f} GiB are free now: end other programs first")
    if (step := sum(seconds.values())) > LONG_STEP_S:
        better = "use a smaller batch, shorter lengths, a smaller model or a GPU"
        notes.append(f"a step may take {_duration(step)}: {better}")
    return CpuPlan(
        (phase,),
        machine_bytes,
        seconds,
        int(config.trainer.total_training_steps or 1),
        speed,
        faults=(*_overflow(phase, machine_bytes), *_bucket_faults(config)),
        notes=tuple(notes),
    )


def _overflow(phase: MemoryPhase, machine_bytes: float) -> Iterator[str]:
    if phase.bytes > RAY_THRESHOLD * machine_bytes:
        largest = max(phase.parts, key=lambda part: part.bytes)
        yield (
            f"a step needs about {phase.bytes / GIB:.1f} GiB, and Ray kills workers above {RAY_THRESHOLD:.0%} of this "
            f"machine's {machine_bytes / GIB:.1f}; the largest part is {largest.name} ({largest.bytes / GIB:.1f} GiB)"
        )


def _bucket_faults(config: DictConfig) -> Iterator[str]:
    """Weights reach vLLM through a buffer in shared memory."""
    role = config.actor_rollout_ref
    size, needed = (
        int(role.rollout.checkpoint_engine.update_weights_bucket_megabytes),
        bucket_megabytes(role.model.path),
    )
    key, shared = f"checkpoint_engine.update_weights_bucket_megabytes={size}", Path("/dev/shm")
    if size < needed:
        yield f"{key} cannot hold the model's largest tensor: set {needed}, or remove the key"
    elif shared.is_dir() and psutil.disk_usage(str(shared)).free < size * MIB:
        yield f"{key}: {shared} has less free space (in a container: --shm-size)"


def _memory(config: DictConfig, shapes: Mapping[VllmPool, ModelShapes], caches: list[float]) -> Iterator[MemoryPart]:
    (policy, *_), actor = shapes.values(), config.actor_rollout_ref.actor
    data, ranks = config.data, int(config.trainer.n_gpus_per_node)
    length = int(data.max_prompt_length) + int(data.max_response_length)
    size = f"{policy.parameters / 1e6:.0f} M parameters"
    yield MemoryPart("processes", BASE_BYTES + ENGINE_BYTES * len(shapes), "Ray, verl, vLLM without models (assumed)")
    yield MemoryPart("policy, gradients, optimizer", 4 * WIDTH * policy.parameters, f"4 x {WIDTH} B x {size}")
    if actor.use_kl_loss or config.algorithm.use_kl_in_reward:
        yield MemoryPart("reference policy", WIDTH * policy.parameters, f"{WIDTH} B x {size}")
    tokens = ranks * length * int(actor.ppo_micro_batch_size_per_gpu or 1)
    if actor.use_dynamic_bsz:
        tokens = ranks * int(actor.ppo_max_token_len_per_gpu)
    each = token_bytes(policy)
    yield MemoryPart("activations of a micro-batch", each * tokens, f"{tokens} tokens x {each / MIB:.2f} MiB")
    for (pool, model), cache in zip(shapes.items(), caches, strict=False):
        name = pool.key.split(".")[-2].replace("actor_rollout_ref", "policy")
        yield MemoryPart(f"vLLM: {name}", WIDTH * model.parameters + cache, f"weights, KV cache {cache / GIB:.2f} GiB")


def _seconds(
    config: DictConfig, shapes: Mapping[VllmPool, ModelShapes], speed: CpuSpeed
) -> Iterator[tuple[str, float]]:
    (_, model), *judges = shapes.items()
    data, rollout, actor = config.data, config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    prompt, response, prompts = int(data.max_prompt_length), int(data.max_response_length), int(data.train_batch_size)
    rows, rate = prompts * int(rollout.n), EFFICIENCY * speed.flops
    at_once = min(rows, int(rollout.get("max_num_seqs", None) or rows))
    operations = 2 * _matrix_parameters(model)
    token = max(WIDTH * model.active_parameters / speed.bandwidth, operations * at_once / rate)
    yield "rollout", operations * prompts * prompt / rate + token * response * math.ceil(rows / at_once)
    for judge, judge_model in judges:
        yield "judge, one question per row", 2 * _matrix_parameters(judge_model) * rows * judge.longest / rate
    passes = 1 + 3 * int(actor.ppo_epochs) + int(bool(actor.use_kl_loss or config.algorithm.use_kl_in_reward))
    yield "log-probs and update", passes * operations * rows * (prompt + response) / rate


def _matrix_parameters(model: ModelShapes) -> int:
    """Parameters that multiply each token; looking up an embedding costs nothing."""
    return model.active_parameters - (0 if model.tied else model.embedding)


def measure_speed(seconds: float = 0.2) -> CpuSpeed:
    """Time large products and copies, with as many threads as a worker gets (OMP_NUM_THREADS; 1 unless set)."""
    import torch

    before, threads = torch.get_num_threads(), int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    try:
        a, b = torch.rand(1024, 1024), torch.rand(32 * MIB)
        flops = _per_second(lambda: a @ a, 2 * 1024**3, seconds)
        return CpuSpeed(flops, _per_second(b.sum, b.nbytes, seconds), threads)
    finally:
        torch.set_num_threads(before)


def _per_second(work: Callable[[], object], amount: float, seconds: float) -> float:
    work()
    started, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        work()
        done += 1
    return amount * done / passed


def machine_memory() -> tuple[float, float]:
    """Bytes that this machine, or the container that this is, has in all; and of them free now."""
    memory, limit = psutil.virtual_memory(), Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    whole = memory.total if text == "max" else min(memory.total, int(text))
    return whole, min(memory.available, whole)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
