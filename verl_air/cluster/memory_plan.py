"""The memory plan of a recipe: what a GPU holds in each phase of a step, and what cannot fit.

For a recipe that passed ``verl_air.training.preflight``, which checks that sizes divide. Estimates, not bounds; what is
assumed is marked so in the notes of the parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from verl_air.cluster.model_shapes import ModelShapes, find_shapes
from verl_air.cluster.trainer_memory import (
    MemoryPart,
    ParallelLayout,
    TrainerSettings,
    read_layout,
    read_trainer_settings,
    total,
    update_parts,
)
from verl_air.cluster.vllm_memory import (
    GIB,
    VllmPool,
    cache_faults,
    pool_faults,
    read_vllm_pools,
    rollout_gpus,
    vllm_parts,
)

# What no formula gives. Verify on your own machine.
TRAINER_OVERHEAD = 4 * GIB  # CUDA context, communication buffers, fragmentation
VLLM_ASLEEP = 2 * GIB  # context and CUDA graphs, which vLLM keeps while it sleeps


@dataclass(frozen=True)
class MemoryPhase:
    """What is on a GPU at the same time."""

    name: str
    parts: tuple[MemoryPart, ...]

    @property
    def bytes(self) -> float:
        """The sum."""
        return total(self.parts)


@dataclass(frozen=True)
class MemoryPlan:
    """The plan for GPUs of ``gpu_bytes``. ``faults``: what cannot fit. ``notes``: what works, but slowly.

    ``shapes``: the vLLM pools and the models they serve, the policy's first. ``host_bytes``: offloaded, per node.
    """

    layout: ParallelLayout
    shapes: Mapping[VllmPool, ModelShapes]
    phases: tuple[MemoryPhase, ...]
    gpu_bytes: float
    host_bytes: float
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    step: tuple[str, ...]

    def summary(self) -> str:
        """The peak of each phase, in one line."""
        peaks = ", ".join(f"{phase.name} {phase.bytes / GIB:.1f}" for phase in self.phases)
        return f"estimated GiB per GPU of {self.gpu_bytes / GIB:.4g}: {peaks}"

    def table(self) -> list[str]:
        """The plan as lines of text, but for its faults."""
        model = next(iter(self.shapes.values()))
        active = f", {model.active_parameters / 1e9:.2f} B active" if model.experts else ""
        lines = [
            f"model    {model.parameters / 1e9:.2f} B parameters{active} "
            f"({model.family}, {model.layers} layers of {model.hidden})",
            f"trainer  {self.layout}",
            *(f"vLLM     {p.key}: {p.engines} engine(s), tp {p.tensor}, on {p.gpus} GPU(s)" for p in self.shapes),
            *self.step,
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
    layout, (policy, *judges) = read_layout(config), read_vllm_pools(config)
    settings, model = read_trainer_settings(config, layout), find_shapes(policy.model, model_config)
    shapes = {policy: model} | {
        judge: model if judge.model == policy.model else find_shapes(judge.model) for judge in judges
    }
    update = update_parts(model, layout, settings)
    state_bytes = {part.name: part.bytes for part in update}
    phases = tuple(_phases(config, update, settings, shapes, gpu_bytes))
    faults = [fault for pool, shape in shapes.items() for fault in pool_faults(pool, shape)]
    faults += [fault for pool, shape in shapes.items() for fault in cache_faults(pool, shape, gpu_bytes)]
    faults += [_overflow(phase, gpu_bytes) for phase in phases if phase.bytes > gpu_bytes * (1 + 1e-9)]
    offloaded = settings.param_offload * state_bytes["weights"]
    offloaded += settings.optimizer_offload * state_bytes["optimizer states"]
    return MemoryPlan(
        layout,
        shapes,
        phases,
        gpu_bytes,
        host_bytes=layout.gpus_per_node * offloaded,
        faults=tuple(faults),
        notes=tuple(_notes(layout)),
        step=tuple(_step(config, layout, settings.tokens)),
    )


def _phases(
    config: DictConfig,
    update: tuple[MemoryPart, ...],
    settings: TrainerSettings,
    shapes: Mapping[VllmPool, ModelShapes],
    gpu_bytes: float,
) -> Iterator[MemoryPhase]:
    (policy, model), *judges = shapes.items()
    overhead = MemoryPart("overhead", TRAINER_OVERHEAD, "CUDA context, communication, fragmentation (assumed)")
    during_rollout = vllm_parts(policy, model, gpu_bytes)
    if rollout_gpus(config):
        yield MemoryPhase("update", (*update, overhead))
    else:
        asleep = MemoryPart("vLLM, asleep", VLLM_ASLEEP, "context and CUDA graphs (assumed)")
        if not config.actor_rollout_ref.rollout.free_cache_engine:
            note = "free_cache_engine=False keeps all of it"
            asleep = MemoryPart("vLLM, awake", policy.utilization * gpu_bytes, note)
        yield MemoryPhase("update", (*update, asleep, overhead))
        # Megatron keeps its gradient buffers unless weights are offloaded; FSDP has no gradients between updates.
        megatron = config.actor_rollout_ref.actor.strategy == "megatron"
        kept = {
            "weights": not settings.param_offload,
            "gradients": megatron and not settings.param_offload,
            "optimizer states": not settings.optimizer_offload,
        }
        during_rollout += [
            MemoryPart(f"trainer: {part.name}", part.bytes, "not offloaded") for part in update if kept.get(part.name)
        ]
        during_rollout.append(overhead)
    yield MemoryPhase("rollout", tuple(during_rollout))
    for judge, judge_model in judges:
        yield MemoryPhase("reward model (own GPUs)", tuple(vllm_parts(judge, judge_model, gpu_bytes)))


def _overflow(phase: MemoryPhase, gpu_bytes: float) -> str:
    largest = max(phase.parts, key=lambda part: part.bytes)
    return (
        f"{phase.name} needs about {phase.bytes / GIB:.1f} GiB per GPU and there are {gpu_bytes / GIB:.1f}; "
        f"the largest part is {largest.name} ({largest.bytes / GIB:.1f} GiB)"
    )


def _step(config: DictConfig, layout: ParallelLayout, micro_batch_tokens: int) -> Iterator[str]:
    """The prompts, completions and tokens of a step. Lengths are the longest that the recipe allows."""
    data, air, completions = config.data, config.get("air", None), int(config.actor_rollout_ref.rollout.n)
    prompts, mini_batch = int(data.train_batch_size), int(config.actor_rollout_ref.actor.ppo_mini_batch_size)
    group = 1 if air is None else int(air.get("anchors_per_intent", 1)) + int(air.get("open_per_intent", 3))
    yield (
        f"step     {prompts // group} intents x {group} prompts x {completions} completions = "
        f"{prompts * completions} trajectories; {prompts // mini_batch} update(s), "
        f"{mini_batch * completions / layout.data:g} trajectories per rank (dp) in each"
    )
    yield (
        f"lengths  {data.max_prompt_length} + {data.max_response_length} tokens; a micro-batch holds up to "
        f"{micro_batch_tokens} tokens on a GPU"
    )


def _notes(layout: ParallelLayout) -> Iterator[str]:
    if layout.engine == "megatron" and layout.gpus_per_node % layout.tensor:
        yield (
            f"tp {layout.tensor} does not divide the {layout.gpus_per_node} GPUs of a node, so that some "
            "tensor-parallel groups span nodes, where every layer waits for the network"
        )
