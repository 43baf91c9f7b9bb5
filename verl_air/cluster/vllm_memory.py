"""The GPUs on which vLLM serves a model, how it divides their memory, and what cannot fit there.

Ours, because vLLM finds out on the GPU only, once the weights are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig

from verl_air.cluster.layout import head_faults
from verl_air.cluster.model_shapes import ModelShapes
from verl_air.cluster.nodes import pools_of
from verl_air.cluster.trainer_memory import MemoryPart

GIB = 2**30
VLLM_OVERHEAD = 3 * GIB  # CUDA graphs, activations of a prefill, context; vLLM measures its own at start


@dataclass(frozen=True)
class VllmPool:
    """The GPUs on which vLLM serves one model. ``key``: where the recipe says so; ``longest``: sequence, in tokens.

    An engine spans ``tensor`` x ``data`` GPUs; ``data`` replicas share the experts. ``needed``: the sequence that a
    training step generates at most; 0 for a judge, whose requests may be shorter than its recipe allows.
    """

    key: str
    model: str
    gpus: int
    tensor: int
    data: int
    utilization: float
    longest: int
    needed: int

    @property
    def engines(self) -> int:
        """Engines in the pool."""
        return self.gpus // (self.tensor * self.data)


def read_vllm_pools(config: DictConfig) -> tuple[VllmPool, ...]:
    """The policy's pool, and that of a reward model which has GPUs of its own."""
    data, role, judge = config.data, config.actor_rollout_ref, config.reward.reward_model
    gpus = {pool.name: pool.nodes * pool.gpus for pool in pools_of(config)}
    length = int(data.max_prompt_length) + int(data.max_response_length)
    own = gpus.get("rollout", gpus["trainer"])
    policy = _pool(role.rollout, "actor_rollout_ref.rollout", str(role.model.path), own, length, needed=length)
    if "reward model" not in gpus:
        return (policy,)
    length = int(judge.rollout.prompt_length) + int(judge.rollout.response_length)
    own, key = gpus["reward model"], "reward.reward_model.rollout"
    return policy, _pool(judge.rollout, key, str(judge.model_path), own, length)


def _pool(rollout: DictConfig, key: str, model: str, gpus: int, length: int, needed: int = 0) -> VllmPool:
    return VllmPool(
        key,
        model,
        gpus,
        tensor=int(rollout.tensor_model_parallel_size),
        data=int(rollout.get("data_parallel_size", 1) or 1),
        utilization=float(rollout.gpu_memory_utilization),
        longest=int(rollout.get("max_model_len", None) or length),
        needed=needed,
    )


def vllm_parts(pool: VllmPool, model: ModelShapes, gpu_bytes: float) -> list[MemoryPart]:
    """How vLLM divides its share of a GPU; the KV cache gets what is left, and may come out negative."""
    weights = 2 * model.parameters / pool.tensor
    cache = pool.utilization * gpu_bytes - weights - VLLM_OVERHEAD
    token = model.kv_bytes_per_token(pool.tensor)
    fits = max(cache, 0) / (token * pool.longest)
    note = f"{token / 1024:g} KiB per token: {fits:.0f} sequences of {pool.longest} tokens at a time"
    return [
        MemoryPart("vLLM: weights", weights, f"2 B x {model.parameters / 1e9:.2f} B parameters / tp {pool.tensor}"),
        MemoryPart("vLLM: KV cache", cache, note),
        MemoryPart("vLLM: the rest", VLLM_OVERHEAD, "CUDA graphs, activations, context (assumed)"),
    ]


def pool_faults(pool: VllmPool, model: ModelShapes, gpu_bytes: float) -> Iterator[str]:
    """vLLM's engines fill the pool, split the model, and hold a sequence, for which their KV cache has room."""
    tensor = f"{pool.key}.tensor_model_parallel_size"
    if pool.gpus % (pool.tensor * pool.data):
        sizes = f"{tensor}={pool.tensor} x data_parallel_size={pool.data}"
        yield f"{sizes} does not divide the {pool.gpus} GPUs of its pool"
    yield from head_faults(tensor, pool.tensor, model)
    if pool.longest < pool.needed:
        yield f"{pool.key}.max_model_len={pool.longest} cannot hold one sequence of {pool.needed} tokens"
    if pool.longest > model.max_positions:
        longest = f"sequences of {pool.longest} tokens"
        yield f"{pool.key}: {longest} are longer than the model's {model.max_positions} positions"
    cache, sequence = vllm_parts(pool, model, gpu_bytes)[1].bytes, model.kv_bytes_per_token(pool.tensor) * pool.longest
    if cache < sequence:
        yield (
            f"{pool.key}: with gpu_memory_utilization={pool.utilization:g} vLLM gets "
            f"{pool.utilization * gpu_bytes / GIB:.1f} GiB per GPU; weights and overhead leave {cache / GIB:.1f} GiB "
            f"for the KV cache, and one sequence of {pool.longest} tokens needs {sequence / GIB:.1f}"
        )
