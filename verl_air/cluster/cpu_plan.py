"""Without a GPU: sizes that follow the model (``recipes/hardware/cpu``), and what a step takes in memory and time.

The sizes are OmegaConf resolvers, ``${air_cpu.NAME:...}``, so that a recipe shows where they come from and may set its
own (``verl_air.compose.register_resolvers``). All computation is in fp32 and weights are whole on each rank's machine.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
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
EFFICIENCY = 0.4  # of a large matrix product's speed that a step reaches
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
