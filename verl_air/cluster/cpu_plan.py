"""Without a GPU: sizes that follow the model (``recipes/hardware/cpu``), and what a step takes in memory and time.

The sizes are OmegaConf resolvers, ``${air_cpu.NAME:...}``, so that a recipe shows where they come from and may set its
own (``verl_air.compose.register_resolvers``). All computation is in fp32 and weights are whole on each rank's machine.
Ours and not verl's FlopsCounter, which covers the training of some model families, and neither
memory nor generation.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil
from omegaconf import DictConfig, OmegaConf

from verl_air.cluster.memory_plan import MemoryPhase, MemoryPlan
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
    """None where the model cannot be read: least sizes are then taken, and a warning says so.

    A folder that is not there is no warning: a run of it is refused, and `evaluate` uses no sizes.
    """
    if model.count("/") != 1 and not Path(model).expanduser().exists():
        return None
    try:
        return find_shapes(model)
    except ConfigError as error:
        warnings.warn(f"{error} (so the sizes of hardware/cpu do not follow it)", stacklevel=2)
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


class CpuSpeed(NamedTuple):
    """fp32 operations and bytes of memory per second."""

    flops: float
    bandwidth: float


def plan_cpu(config: DictConfig, machine_bytes: float, speed: CpuSpeed, available_bytes: float) -> MemoryPlan:
    """Plan a composed recipe for a machine without a GPU: its memory, and the seconds of a step.

    Raises:
        ConfigError: a model's sizes cannot be found.
    """
    shapes = {pool: find_shapes(pool.model) for pool in read_vllm_pools(config)}
    phase, seconds = MemoryPhase("a step", tuple(_memory(config, shapes))), dict(_seconds(config, shapes, speed))
    needed, machine = f"{phase.bytes / GIB:.1f}", f"this machine's {machine_bytes / GIB:.1f}"
    steps, step = int(config.trainer.total_training_steps or 1), sum(seconds.values())
    faults, notes = list(_bucket_faults(config)), []
    if phase.bytes > RAY_THRESHOLD * machine_bytes:
        faults.append(
            f"a step needs about {needed} GiB, and Ray kills workers above {RAY_THRESHOLD:.0%} of {machine}; "
            f"{phase.largest}"
        )
    if phase.bytes > available_bytes:
        notes.append(f"only {available_bytes / GIB:.1f} GiB are free now: end other programs first")
    if step > LONG_STEP_S:
        better = "use a smaller batch, shorter lengths, a smaller model or a GPU"
        notes.append(f"a step may take {_duration(step)}: {better}")
    return MemoryPlan(
        f"estimated {needed} of {machine} GiB; at most about {_duration(step)} per step, {_duration(step * steps)} "
        f"for {steps} steps",
        (phase,),
        f"GiB of {machine_bytes / GIB:.4g}",
        before=(),
        after=(
            "",
            f"seconds of a step, with all lengths at their limit ({speed.flops / 1e9:.0f} GFLOP/s measured)",
            *(f"  {name:<32}{part:>7.0f}" for name, part in seconds.items()),
        ),
        faults=tuple(faults),
        notes=tuple(notes),
    )


def _bucket_faults(config: DictConfig) -> Iterator[str]:
    """Weights reach vLLM through a buffer in shared memory."""
    role = config.actor_rollout_ref
    size, shared = int(role.rollout.checkpoint_engine.update_weights_bucket_megabytes), Path("/dev/shm")
    key = f"checkpoint_engine.update_weights_bucket_megabytes={size}"
    if size < (needed := bucket_megabytes(role.model.path)):
        yield f"{key} cannot hold the model's largest tensor: set {needed}, or remove the key"
    elif shared.is_dir() and psutil.disk_usage(str(shared)).free < size * MIB:
        yield f"{key}: {shared} has less free space (in a container: --shm-size)"


def _memory(config: DictConfig, shapes: Mapping[VllmPool, ModelShapes]) -> Iterator[MemoryPart]:
    (policy, *_), actor = shapes.values(), config.actor_rollout_ref.actor
    data, ranks = config.data, int(config.trainer.n_gpus_per_node)
    length = int(data.max_prompt_length) + int(data.max_response_length)
    size = f"{policy.parameters / 1e6:.0f} M parameters"
    yield MemoryPart("processes", BASE_BYTES + ENGINE_BYTES * len(shapes), "Ray, verl, vLLM without models (assumed)")
    yield MemoryPart("policy, gradients, optimizer", 4 * WIDTH * policy.parameters, f"4 x {WIDTH} B x {size}")
    if _has_reference(config):
        yield MemoryPart("reference policy", WIDTH * policy.parameters, f"{WIDTH} B x {size}")
    tokens = ranks * length * int(actor.ppo_micro_batch_size_per_gpu or 1)
    if actor.use_dynamic_bsz:
        tokens = ranks * int(actor.ppo_max_token_len_per_gpu)
    each = token_bytes(policy)
    yield MemoryPart("activations of a micro-batch", each * tokens, f"{tokens} tokens x {each / MIB:.2f} MiB")
    for pool, model in shapes.items():
        cache = float(OmegaConf.select(config, f"{pool.key}.engine_kwargs.vllm.kv_cache_memory_bytes") or 4 * GIB)
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
    operations = _operations(model)
    token = max(WIDTH * model.active_parameters / speed.bandwidth, operations * at_once / rate)
    yield "rollout", operations * prompts * prompt / rate + token * response * math.ceil(rows / at_once)
    for judge, judge_model in judges:
        yield "judge, one question per row", _operations(judge_model) * rows * judge.longest / rate
    passes = 1 + 3 * int(actor.ppo_epochs) + int(_has_reference(config))
    yield "log-probs and update", passes * operations * rows * (prompt + response) / rate


def _has_reference(config: DictConfig) -> bool:
    kl = config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward
    return bool(kl or OmegaConf.select(config, "air.consistency", default=0.0))


def _operations(model: ModelShapes) -> int:
    """Of a token's forward pass: two per parameter; looking up an embedding costs nothing."""
    return 2 * (model.active_parameters - (model.embedding if model.head else 0))


def measure_speed(seconds: float = 0.2) -> CpuSpeed:
    """Time large products and sums, with as many threads as a worker gets (OMP_NUM_THREADS; 1 unless set)."""
    import torch
    from torch.utils.benchmark import Timer

    operands = {"a": torch.rand(1024, 1024), "b": torch.rand(32 * MIB)}
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))

    def seconds_of(statement: str) -> float:
        return Timer(statement, globals=operands, num_threads=threads).blocked_autorange(min_run_time=seconds).median

    return CpuSpeed(2 * 1024**3 / seconds_of("a @ a"), operands["b"].nbytes / seconds_of("b.sum()"))


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
