"""The inference engine: what vLLM gets of a GPU, and how many sequences its KV cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig

from verl_air.planning.architecture import Architecture
from verl_air.planning.memory import GIB, Part

ENGINE_OVERHEAD = 3 * GIB  # CUDA graphs, activations of a prefill, context; vLLM measures its own at start


@dataclass(frozen=True)
class Engine:
    """A vLLM engine on ``tensor`` of the ``gpus`` GPUs of its pool (with ``data`` replicas inside, for experts)."""

    key: str
    model: Architecture
    gpus: int
    tensor: int
    data: int
    utilization: float
    longest: int
    sequences: int

    @property
    def replicas(self) -> int:
        """Engines in the pool."""
        return max(self.gpus // (self.tensor * self.data), 1)


def read_engine(rollout: DictConfig, key: str, model: Architecture, gpus: int, length: int) -> Engine:
    """An engine from verl's rollout section at ``key``; ``length``: prompt and response, in tokens."""
    return Engine(
        key=key,
        model=model,
        gpus=gpus,
        tensor=int(rollout.tensor_model_parallel_size),
        data=int(rollout.get("data_parallel_size", 1) or 1),
        utilization=float(rollout.gpu_memory_utilization),
        longest=int(rollout.get("max_model_len", None) or length),
        sequences=int(rollout.max_num_seqs),
    )


def engine_faults(engine: Engine, length: int) -> Iterator[str]:
    """What does not divide or is too short."""
    model = engine.model
    if engine.gpus % (engine.tensor * engine.data):
        product = f"{engine.key}: tensor_model_parallel_size {engine.tensor} x data_parallel_size {engine.data}"
        yield f"{product} does not divide the {engine.gpus} GPUs of its pool"
    if model.heads % engine.tensor:
        yield f"{engine.key}.tensor_model_parallel_size={engine.tensor} does not divide {model.heads} attention heads"
    elif model.kv_heads % engine.tensor and engine.tensor % model.kv_heads:
        yield (
            f"{engine.key}.tensor_model_parallel_size={engine.tensor} is neither a divisor nor a multiple of the "
            f"{model.kv_heads} key-value heads"
        )
    if engine.longest < length:
        yield f"{engine.key}.max_model_len={engine.longest} cannot hold one sequence of {length} tokens"
    if engine.longest > model.max_positions:
        yield (
            f"{engine.key}: sequences of {engine.longest} tokens are longer than the model's "
            f"{model.max_positions} positions"
        )


def engine_parts(engine: Engine, gpu_bytes: float) -> list[Part]:
    """How vLLM divides its share of a GPU; the KV cache gets what is left, and may come out negative."""
    model, share = engine.model, engine.utilization * gpu_bytes
    weights = 2 * model.parameters / engine.tensor
    cache = share - weights - ENGINE_OVERHEAD
    token = model.kv_bytes_per_token(engine.tensor)
    fits = max(cache, 0) / (token * engine.longest)
    note = f"{token / 1024:g} KiB a token: {fits:.0f} sequences of {engine.longest} tokens at a time"
    return [
        Part("vLLM: weights", weights, f"2 B x {model.parameters / 1e9:.2f} B parameters / tp {engine.tensor}"),
        Part("vLLM: KV cache", cache, note),
        Part("vLLM: the rest", ENGINE_OVERHEAD, "CUDA graphs, activations, context (assumed)"),
    ]


def cache_fault(engine: Engine, gpu_bytes: float) -> str | None:
    """Why the KV cache is too small for a single sequence, or None."""
    cache = engine_parts(engine, gpu_bytes)[1].bytes
    needed = engine.model.kv_bytes_per_token(engine.tensor) * engine.longest
    if cache >= needed:
        return None
    return (
        f"{engine.key}: with gpu_memory_utilization={engine.utilization:g} vLLM gets "
        f"{engine.utilization * gpu_bytes / GIB:.1f} GiB a GPU; weights and overhead leave {cache / GIB:.1f} GiB for "
        f"the KV cache, and one sequence of {engine.longest} tokens needs {needed / GIB:.1f}"
    )
