"""The memory plan of a recipe: what a GPU holds in each phase of a step, and what cannot fit.

For a recipe that passed ``verl_air.training.preflight``, which checks that sizes divide. Estimates, not bounds; what is
assumed is marked so in the notes of the parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from verl_air.cluster.layout import ParallelLayout, read_layout
from verl_air.cluster.model_shapes import ModelShapes, find_shapes
from verl_air.cluster.nodes import pools_of
from verl_air.cluster.trainer_memory import MemoryPart, TrainerSettings, read_trainer_settings, total, update_parts
from verl_air.cluster.vllm_memory import GIB, VllmPool, pool_faults, read_vllm_pools, vllm_parts

# What no formula gives. Verify on your own machine.
TRAINER_OVERHEAD = 4 * GIB  # CUDA context, communication buffers, fragmentation
VLLM_ASLEEP = 2 * GIB  # context and CUDA graphs, which vLLM keeps while it sleeps


@dataclass(frozen=True)
class MemoryPhase:
    """What is in memory at the same time."""

    name: str
    parts: tuple[MemoryPart, ...]

    @property
    def bytes(self) -> float:
        """The sum."""
        return total(self.parts)

    @property
    def largest(self) -> str:
        """The largest part and its size, for messages."""
        part = max(self.parts, key=lambda part: part.bytes)
        return f"the largest part is {part.name} ({part.bytes / GIB:.1f} GiB)"


@dataclass(frozen=True)
class MemoryPlan:
    """The plan for GPUs, or for a machine without one, that have ``size``, such as "GiB per GPU of 79".

    ``before`` and ``after``: lines around the table of the phases. ``faults``: what cannot fit. ``notes``: what works,
    but slowly.
    """

    summary: str
    phases: tuple[MemoryPhase, ...]
    size: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    def table(self) -> list[str]:
        """The plan as lines of text, but for its faults."""
        lines = list(self.before)
        for phase in self.phases:
            lines += ["", f"{phase.name}: {self.size}"]
            lines += [f"  {part.name:<32}{part.bytes / GIB:>7.1f}  {part.note}" for part in phase.parts]
            lines.append(f"  {'together':<32}{phase.bytes / GIB:>7.1f}")
        return [*lines, *self.after, *(f"note: {note}" for note in self.notes)]


def plan_memory(config: DictConfig, gpu_bytes: float, model_config: str | Path | None = None) -> MemoryPlan:
    """Plan a composed recipe for GPUs of ``gpu_bytes``.

    Raises:
        ConfigError: a model's sizes cannot be found, or the engine is none of FSDP, FSDP2 and Megatron.
    """
    layout, (policy, *judges) = read_layout(config), read_vllm_pools(config)
    settings, model = read_trainer_settings(config, layout), find_shapes(policy.model, model_config)
    shapes = {policy: model} | {
        judge: model if judge.model == policy.model else find_shapes(judge.model) for judge in judges
    }
    update = update_parts(model, layout, settings)
    phases = tuple(_phases(config, update, settings, shapes, gpu_bytes))
    size, peaks = f"GiB per GPU of {gpu_bytes / GIB:.4g}", ", ".join(f"{p.name} {p.bytes / GIB:.1f}" for p in phases)
    return MemoryPlan(
        f"estimated {size}: {peaks}",
        phases,
        size,
        before=tuple(_description(config, layout, settings, shapes)),
        after=tuple(_offloaded(update, layout, settings)),
        faults=(
            *(fault for pool, shape in shapes.items() for fault in pool_faults(pool, shape, gpu_bytes)),
            *(
                f"{phase.name} needs about {phase.bytes / GIB:.1f} GiB per GPU and there are {gpu_bytes / GIB:.1f}; "
                f"{phase.largest}"
                for phase in phases
                if phase.bytes > gpu_bytes * (1 + 1e-9)
            ),
        ),
        notes=tuple(_notes(layout)),
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
    rollout = vllm_parts(policy, model, gpu_bytes)
    if any(pool.name == "rollout" for pool in pools_of(config)):
        yield MemoryPhase("update", (*update, overhead))
    else:
        meanwhile = MemoryPart("vLLM, asleep", VLLM_ASLEEP, "context and CUDA graphs (assumed)")
        if not config.actor_rollout_ref.rollout.free_cache_engine:
            note = "free_cache_engine=False keeps all of it"
            meanwhile = MemoryPart("vLLM, awake", policy.utilization * gpu_bytes, note)
        yield MemoryPhase("update", (*update, meanwhile, overhead))
        # Megatron keeps its gradient buffers unless weights are offloaded; FSDP has no gradients between updates.
        megatron = config.actor_rollout_ref.actor.strategy == "megatron"
        kept = {
            "weights": not settings.param_offload,
            "gradients": megatron and not settings.param_offload,
            "optimizer states": not settings.optimizer_offload,
        }
        stays = [part for part in update if kept.get(part.name)]
        rollout += [MemoryPart(f"trainer: {part.name}", part.bytes, "not offloaded") for part in stays]
        rollout.append(overhead)
    yield MemoryPhase("rollout", tuple(rollout))
    for judge, judge_model in judges:
        yield MemoryPhase("reward model (own GPUs)", tuple(vllm_parts(judge, judge_model, gpu_bytes)))


def _description(
    config: DictConfig, layout: ParallelLayout, settings: TrainerSettings, shapes: Mapping[VllmPool, ModelShapes]
) -> Iterator[str]:
    """Model, layout, and the prompts, completions and tokens of a step, with the longest lengths that are allowed."""
    data, air, completions = config.data, config.get("air", None), int(config.actor_rollout_ref.rollout.n)
    prompts, mini_batch = int(data.train_batch_size), int(config.actor_rollout_ref.actor.ppo_mini_batch_size)
    group = 1 if air is None else int(air.get("anchors_per_intent", 1)) + int(air.get("open_per_intent", 3))
    model = next(iter(shapes.values()))
    active = f", {model.active_parameters / 1e9:.2f} B active" if model.experts else ""
    yield (
        f"model    {model.parameters / 1e9:.2f} B parameters{active} "
        f"({model.family}, {model.layers} layers of {model.hidden})"
    )
    yield f"trainer  {layout}"
    for pool in shapes:
        yield f"vLLM     {pool.key}: {pool.engines} engine(s), tp {pool.tensor}, on {pool.gpus} GPU(s)"
    yield (
        f"step     {prompts // group} intents x {group} prompts x {completions} completions = "
        f"{prompts * completions} trajectories; {prompts // mini_batch} update(s), "
        f"{mini_batch * completions / layout.data:g} trajectories per rank (dp) in each"
    )
    yield (
        f"lengths  {data.max_prompt_length} + {data.max_response_length} tokens; a micro-batch holds up to "
        f"{settings.tokens} tokens per GPU"
    )


def _offloaded(update: tuple[MemoryPart, ...], layout: ParallelLayout, settings: TrainerSettings) -> Iterator[str]:
    offloaded = {"weights": settings.param_offload, "optimizer states": settings.optimizer_offload}
    if size := layout.gpus_per_node * total(part for part in update if offloaded.get(part.name)):
        yield from ("", f"offloaded to the memory of each node: {size / GIB:.0f} GiB")


def _notes(layout: ParallelLayout) -> Iterator[str]:
    if layout.engine == "megatron" and layout.gpus_per_node % layout.tensor:
        yield (
            f"tp {layout.tensor} does not divide the {layout.gpus_per_node} GPUs of a node, so that some "
            "tensor-parallel groups span nodes, where every layer waits for the network"
        )
