"""A recipe's plan: what divides, what fits, and how many GiB each part of a GPU takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from verl_air.errors import ConfigError
from verl_air.planning import memory, rollout
from verl_air.planning.architecture import Architecture, find_architecture
from verl_air.planning.batch import Batch, batch_faults, read_batch
from verl_air.planning.layout import Layout, layout_faults, layout_remarks, read_layout
from verl_air.planning.memory import ASLEEP, GIB, TRAINER_OVERHEAD, Part, Training

ENGINES = ("fsdp", "fsdp2", "megatron")


@dataclass(frozen=True)
class Phase:
    """What lies on a GPU at the same time."""

    name: str
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> float:
        """The sum."""
        return memory.total(self.parts)


@dataclass(frozen=True)
class Plan:
    """The plan of a recipe. ``faults`` cannot work; ``remarks`` work, but slowly."""

    model: Architecture
    layout: Layout
    batch: Batch
    engines: tuple[rollout.Engine, ...]
    phases: tuple[Phase, ...]
    host_bytes: float
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())


def make_plan(config: DictConfig, gpu_bytes: float, model_config: str | Path | None = None) -> Plan:
    """Plan a composed recipe for GPUs of ``gpu_bytes``.

    Raises:
        ConfigError: the model's sizes cannot be found, or the engine is none of FSDP, FSDP2 and Megatron.
    """
    layout, model = _engine_layout(config), find_architecture(str(config.actor_rollout_ref.model.path), model_config)
    batch = read_batch(config, layout)
    engines = tuple(_engines(config, model, layout, batch))
    faults = [*layout_faults(layout, model), *batch_faults(config, batch, layout)]
    faults += rollout.engine_faults(engines[0], batch.sequence_length)
    faults += [fault for engine in engines[1:] for fault in rollout.engine_faults(engine, engine.longest)]
    phases: tuple[Phase, ...] = ()
    host = 0.0
    if not faults:
        training = read_training(config, batch)
        states = _states(model, layout, training)
        phases = tuple(_phases(config, model, layout, training, engines, gpu_bytes))
        host = layout.gpus_per_node * sum(_offloaded(states, training))
        faults = list(_does_not_fit(phases, engines, gpu_bytes))
    return Plan(model, layout, batch, engines, phases, host, tuple(faults), tuple(layout_remarks(layout)))


def check_recipe_sizes(config: DictConfig) -> None:
    """What can be said without the model's memory: sizes that do not divide. For use before a run.

    Raises:
        ConfigError: something does not divide; the first such thing. A model of unknown sizes is passed over.
    """
    if str(config.actor_rollout_ref.actor.strategy) not in ENGINES:
        return
    layout = read_layout(config)
    try:
        model = find_architecture(str(config.actor_rollout_ref.model.path))
    except ConfigError:
        model = None
    for fault in (*layout_faults(layout, model), *batch_faults(config, read_batch(config, layout), layout)):
        raise ConfigError(fault)


def read_training(config: DictConfig, batch: Batch) -> Training:
    """The trainer's settings that decide about memory."""
    role = config.actor_rollout_ref
    fused = bool(role.model.get("use_fused_kernels", False))
    if role.actor.strategy == "megatron":
        engine = role.actor.megatron
        return Training(
            tokens=batch.micro_batch_tokens,
            recompute=engine.override_transformer_config.get("recompute_granularity", None) == "full",
            fused_head=fused,
            param_offload=bool(engine.param_offload),
            optimizer_offload=bool(engine.optimizer_offload),
        )
    engine = role.actor.fsdp_config
    return Training(
        tokens=batch.micro_batch_tokens,
        recompute=bool(role.model.enable_gradient_checkpointing),
        fused_head=fused,
        master_bytes=2 if str(engine.model_dtype) in ("bf16", "bfloat16", "fp16", "float16") else 4,
        param_offload=bool(engine.param_offload),
        optimizer_offload=bool(engine.optimizer_offload),
        unsharded_gradients=bool(engine.use_no_sync_for_gradient_accumulation),
    )


def _engine_layout(config: DictConfig) -> Layout:
    strategy = str(config.actor_rollout_ref.actor.strategy)
    if strategy not in ENGINES:
        raise ConfigError(f"actor_rollout_ref.actor.strategy={strategy}: only {', '.join(ENGINES)} can be planned for")
    return read_layout(config)


def _engines(config: DictConfig, model: Architecture, layout: Layout, batch: Batch) -> Iterator[rollout.Engine]:
    own = int(OmegaConf.select(config, "actor_rollout_ref.rollout.nnodes", default=0) or 0)
    gpus = own * int(config.actor_rollout_ref.rollout.n_gpus_per_node) if own else layout.world
    length = batch.sequence_length
    yield rollout.read_engine(config.actor_rollout_ref.rollout, "actor_rollout_ref.rollout", model, gpus, length)
    judge = config.reward.reward_model
    if judge.enable and judge.enable_resource_pool:
        length = int(judge.rollout.prompt_length) + int(judge.rollout.response_length)
        gpus = int(judge.nnodes) * int(judge.n_gpus_per_node)
        same = str(judge.model_path) == str(config.actor_rollout_ref.model.path)
        judging = model if same else find_architecture(str(judge.model_path))
        yield rollout.read_engine(judge.rollout, "reward.reward_model.rollout", judging, gpus, length)


def _update_parts(model: Architecture, layout: Layout, training: Training) -> list[Part]:
    """The parts of an update on the GPU that needs most."""
    if layout.engine != "megatron":
        return list(memory.fsdp_parts(model, layout, training))
    stages = [list(memory.megatron_parts(model, layout, training, s)) for s in memory.megatron_stages(model, layout)]
    return max(stages, key=memory.total)


def _states(model: Architecture, layout: Layout, training: Training) -> dict[str, float]:
    """Bytes of weights and optimizer states on that GPU."""
    parts = {part.name: part.bytes for part in _update_parts(model, layout, training)}
    return {name: parts[name] for name in ("weights", "gradients", "optimizer states")}


def _offloaded(states: dict[str, float], training: Training) -> tuple[float, float]:
    return (
        states["weights"] * training.param_offload,
        states["optimizer states"] * training.optimizer_offload,
    )


def _phases(
    config: DictConfig,
    model: Architecture,
    layout: Layout,
    training: Training,
    engines: tuple[rollout.Engine, ...],
    gpu_bytes: float,
) -> Iterator[Phase]:
    update, states = _update_parts(model, layout, training), _states(model, layout, training)
    overhead = Part("overhead", TRAINER_OVERHEAD, "CUDA context, communication buffers, fragmentation (assumed)")
    engine, separate = engines[0], int(OmegaConf.select(config, "actor_rollout_ref.rollout.nnodes", default=0) or 0) > 0
    generating = rollout.engine_parts(engine, gpu_bytes)
    beside: list[Part] = []
    if not separate and config.actor_rollout_ref.rollout.free_cache_engine:
        beside = [Part("vLLM, asleep", ASLEEP, "context and CUDA graphs (assumed)")]
    elif not separate:
        beside = [Part("vLLM, awake", engine.utilization * gpu_bytes, "free_cache_engine=False keeps all of it")]
    yield Phase("update", (*update, *beside, overhead))
    resident = []
    if not separate:
        kept = {"weights": not training.param_offload, "optimizer states": not training.optimizer_offload}
        # Megatron keeps its gradient buffers unless weights are offloaded; FSDP has no gradients between updates.
        kept["gradients"] = layout.engine == "megatron" and not training.param_offload
        resident = [Part(f"trainer: {name}", states[name], "not offloaded") for name, stays in kept.items() if stays]
        resident.append(overhead)
    yield Phase("rollout", (*generating, *resident))
    for judge in engines[1:]:
        yield Phase("reward model (own GPUs)", tuple(rollout.engine_parts(judge, gpu_bytes)))


def _does_not_fit(phases: tuple[Phase, ...], engines: tuple[rollout.Engine, ...], gpu_bytes: float) -> Iterator[str]:
    for engine in engines:
        fault = rollout.cache_fault(engine, gpu_bytes)
        if fault:
            yield fault
    for phase in phases:
        if phase.bytes > gpu_bytes * (1 + 1e-9):
            largest = max(phase.parts, key=lambda part: part.bytes)
            yield (
                f"{phase.name} needs about {phase.bytes / GIB:.1f} GiB a GPU and there are {gpu_bytes / GIB:.1f}; the "
                f"largest part is {largest.name} ({largest.bytes / GIB:.1f} GiB)"
            )
