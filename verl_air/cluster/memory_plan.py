"""The memory plan of a recipe: what a GPU holds in each phase of a step, and what cannot fit.

For a recipe that passed ``verl_air.training.preflight``, which checks that sizes divide. Estimates, not bounds; their
assumptions are in the notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from verl_air.cluster import memory
from verl_air.cluster.layout import (
    ParallelLayout,
    StepBatch,
    VllmPool,
    read_batch,
    read_layout,
    read_vllm_pools,
    rollout_gpus,
)
from verl_air.cluster.memory import GIB, MemoryPart, TrainerSettings
from verl_air.cluster.model_shapes import ModelShapes, find_shapes


@dataclass(frozen=True)
class MemoryPhase:
    """What is on a GPU at the same time."""

    name: str
    parts: tuple[MemoryPart, ...]

    @property
    def bytes(self) -> float:
        """The sum."""
        return memory.total(self.parts)


@dataclass(frozen=True)
class MemoryPlan:
    """The plan for GPUs of ``gpu_bytes``. ``faults``: what cannot fit. ``notes``: what works, but slowly."""

    model: ModelShapes
    layout: ParallelLayout
    batch: StepBatch
    pools: tuple[VllmPool, ...]
    phases: tuple[MemoryPhase, ...]
    gpu_bytes: float
    host_bytes: float
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The peak of each phase, in one line."""
        peaks = ", ".join(f"{phase.name} {phase.bytes / GIB:.1f}" for phase in self.phases)
        return f"estimated GiB per GPU of {self.gpu_bytes / GIB:.4g}: {peaks}"

    def table(self) -> list[str]:
        """The plan as lines of text, but for its faults."""
        model, batch = self.model, self.batch
        active = f", {model.active_parameters / 1e9:.2f} B active" if model.experts else ""
        lines = [
            f"model    {model.parameters / 1e9:.2f} B parameters{active} "
            f"({model.family}, {model.layers} layers of {model.hidden})",
            f"trainer  {self.layout}",
            *(f"vLLM     {p.key}: {p.engines} engine(s), tp {p.tensor}, on {p.gpus} GPU(s)" for p in self.pools),
            f"step     {batch.intents} intents x {batch.group_size} prompts x {batch.completions} completions = "
            f"{batch.trajectories} trajectories; {batch.updates} update(s), "
            f"{batch.mini_batch_prompts * batch.completions / self.layout.data:g} trajectories per rank (dp) in each",
            f"lengths  {batch.prompt_length} + {batch.response_length} tokens; a micro-batch holds up to "
            f"{batch.micro_batch_tokens} tokens on a GPU",
        ]
        for phase in self.phases:
            lines += ["", f"{phase.name}: GiB per GPU of {self.gpu_bytes / GIB:.4g}"]
            lines += [f"  {part.name:<32}{part.bytes / GIB:>7.1f}  {part.note}" for part in phase.parts]
            lines.append(f"  {'together':<32}{phase.bytes / GIB:>7.1f}")
        if self.host_bytes:
            lines += ["", f"offloaded to the memory of each node: {self.host_bytes / GIB:.0f} GiB"]
        return lines + [f"note: {note}" for note in self.notes]


def plan_memory(config: DictConfig, gpu_bytes: float, model_config: str | Path | None = None) -> MemoryPlan:
    """Plan a composed recipe for GPUs of ``gpu_bytes``.

    Raises:
        ConfigError: the model's sizes cannot be found, or the engine is none of FSDP, FSDP2 and Megatron.
    """
    layout, pools = read_layout(config), read_vllm_pools(config)
    model, batch = find_shapes(pools[0].model, model_config), read_batch(config, layout)
    settings = memory.read_trainer_settings(config, batch)
    shapes = {pool: model if pool.model == pools[0].model else find_shapes(pool.model) for pool in pools}
    update = _update_parts(model, layout, settings)
    states = {part.name: part.bytes for part in update if part.name in ("weights", "gradients", "optimizer states")}
    phases = tuple(_phases(config, update, states, settings, shapes, gpu_bytes))
    offloaded = states["weights"] * settings.param_offload + states["optimizer states"] * settings.optimizer_offload
    return MemoryPlan(
        model,
        layout,
        batch,
        pools,
        phases,
        gpu_bytes,
        host_bytes=layout.gpus_per_node * offloaded,
        faults=tuple(_faults(phases, shapes, batch, gpu_bytes)),
        notes=tuple(_notes(layout)),
    )


def _update_parts(model: ModelShapes, layout: ParallelLayout, settings: TrainerSettings) -> tuple[MemoryPart, ...]:
    """The parts of an update on the GPU that needs most."""
    if layout.engine != "megatron":
        return tuple(memory.fsdp_parts(model, layout, settings))
    stages = memory.megatron_stages(model, layout)
    return max((tuple(memory.megatron_parts(model, layout, settings, stage)) for stage in stages), key=memory.total)


def _phases(
    config: DictConfig,
    update: tuple[MemoryPart, ...],
    states: Mapping[str, float],
    settings: TrainerSettings,
    shapes: Mapping[VllmPool, ModelShapes],
    gpu_bytes: float,
) -> Iterator[MemoryPhase]:
    (policy, model), *judges = shapes.items()
    overhead = MemoryPart("overhead", memory.TRAINER_OVERHEAD, "CUDA context, communication, fragmentation (assumed)")
    during_update, during_rollout = [overhead], []
    if not rollout_gpus(config):
        if config.actor_rollout_ref.rollout.free_cache_engine:
            asleep = MemoryPart("vLLM, asleep", memory.VLLM_ASLEEP, "context and CUDA graphs (assumed)")
        else:
            note = "free_cache_engine=False keeps all of it"
            asleep = MemoryPart("vLLM, awake", policy.utilization * gpu_bytes, note)
        during_update.insert(0, asleep)
        # Megatron keeps its gradient buffers unless weights are offloaded; FSDP has no gradients between updates.
        megatron = config.actor_rollout_ref.actor.strategy == "megatron"
        kept = {
            "weights": not settings.param_offload,
            "optimizer states": not settings.optimizer_offload,
            "gradients": megatron and not settings.param_offload,
        }
        during_rollout = [MemoryPart(f"trainer: {name}", states[name], "not offloaded") for name in kept if kept[name]]
        during_rollout.append(overhead)
    yield MemoryPhase("update", (*update, *during_update))
    yield MemoryPhase("rollout", (*memory.vllm_parts(policy, model, gpu_bytes), *during_rollout))
    for judge, judge_model in judges:
        yield MemoryPhase("reward model (own GPUs)", tuple(memory.vllm_parts(judge, judge_model, gpu_bytes)))


def _faults(
    phases: tuple[MemoryPhase, ...], shapes: Mapping[VllmPool, ModelShapes], batch: StepBatch, gpu_bytes: float
) -> Iterator[str]:
    for number, (pool, model) in enumerate(shapes.items()):
        yield from _pool_faults(pool, model, pool.longest if number else batch.sequence_length)
    for pool, model in shapes.items():
        if fault := memory.cache_fault(pool, model, gpu_bytes):
            yield fault
    for phase in phases:
        if phase.bytes > gpu_bytes * (1 + 1e-9):
            largest = max(phase.parts, key=lambda part: part.bytes)
            yield (
                f"{phase.name} needs about {phase.bytes / GIB:.1f} GiB per GPU and there are {gpu_bytes / GIB:.1f}; "
                f"the largest part is {largest.name} ({largest.bytes / GIB:.1f} GiB)"
            )


def _pool_faults(pool: VllmPool, model: ModelShapes, length: int) -> Iterator[str]:
    """vLLM's engines fill the pool, split the model, and hold a sequence."""
    tensor = f"{pool.key}.tensor_model_parallel_size={pool.tensor}"
    if pool.gpus % (pool.tensor * pool.data):
        yield f"{tensor} x data_parallel_size={pool.data} does not divide the {pool.gpus} GPUs of its pool"
    if model.heads % pool.tensor:
        yield f"{tensor} does not divide the {model.heads} attention heads"
    elif model.kv_heads % pool.tensor and pool.tensor % model.kv_heads:
        yield f"{tensor} is neither a divisor nor a multiple of the {model.kv_heads} key-value heads"
    if pool.longest < length:
        yield f"{pool.key}.max_model_len={pool.longest} cannot hold one sequence of {length} tokens"
    if pool.longest > model.max_positions:
        longest = f"sequences of {pool.longest} tokens"
        yield f"{pool.key}: {longest} are longer than the model's {model.max_positions} positions"


def _notes(layout: ParallelLayout) -> Iterator[str]:
    if layout.engine == "megatron" and layout.gpus_per_node % layout.tensor:
        yield (
            f"tp {layout.tensor} does not divide the {layout.gpus_per_node} GPUs of a node, so that some "
            "tensor-parallel groups span nodes, where every layer waits for the network"
        )
