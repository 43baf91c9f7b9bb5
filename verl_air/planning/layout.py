"""How a recipe spreads a model over GPUs, and whether the sizes divide.

The rules are those of verl 0.9.1 (utils/config.py, workers/engine_workers.py, workers/config), megatron-core 0.16
(parallel_state.py, transformer_config.py) and vLLM. Each of them would stop a run after minutes of start-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from verl_air.planning.architecture import Architecture


@dataclass(frozen=True)
class Layout:
    """Parallel sizes. ``data`` replicas of the model's work; ``shards`` GPUs that share one copy of weights (FSDP)."""

    engine: str
    nodes: int
    gpus_per_node: int
    tensor: int = 1
    pipeline: int = 1
    virtual_pipeline: int = 1
    context: int = 1
    expert: int = 1
    expert_tensor: int = 1
    shards: int = 1
    sequence_parallel: bool = False

    @property
    def world(self) -> int:
        """GPUs that train."""
        return self.nodes * self.gpus_per_node

    @property
    def model(self) -> int:
        """GPUs that work on the same sequences."""
        return self.tensor * self.pipeline * self.context

    @property
    def data(self) -> int:
        """Ranks that see different sequences; 1 at least, so that arithmetic goes on where sizes do not divide."""
        return max(self.world // self.model, 1)

    @property
    def expert_data(self) -> int:
        """GPUs that hold the same experts."""
        return max(self.world // (self.expert * self.expert_tensor * self.pipeline), 1)

    def __str__(self) -> str:
        gpus = f"{self.nodes} x {self.gpus_per_node} GPUs"
        if self.engine != "megatron":
            sequence = f", Ulysses {self.context}" if self.context > 1 else ""
            return f"{self.engine} on {gpus}: weights in {self.shards} shards, dp {self.data}{sequence}"
        virtual = f", vpp {self.virtual_pipeline}" if self.virtual_pipeline > 1 else ""
        expert = f", ep {self.expert}, etp {self.expert_tensor}" if self.expert > 1 else ""
        sizes = f"tp {self.tensor}, pp {self.pipeline}{virtual}, cp {self.context}{expert}, dp {self.data}"
        return f"{self.engine} on {gpus}: {sizes}"


def read_layout(config: DictConfig) -> Layout:
    """The layout of the trainer's workers in a composed recipe."""
    actor = config.actor_rollout_ref.actor
    nodes, gpus = int(config.trainer.nnodes), int(config.trainer.n_gpus_per_node)
    if actor.strategy == "megatron":
        engine = actor.megatron
        tensor = int(engine.tensor_model_parallel_size)
        return Layout(
            engine="megatron",
            nodes=nodes,
            gpus_per_node=gpus,
            tensor=tensor,
            pipeline=int(engine.pipeline_model_parallel_size),
            virtual_pipeline=int(engine.virtual_pipeline_model_parallel_size or 1),
            context=int(engine.context_parallel_size),
            expert=int(engine.expert_model_parallel_size),
            expert_tensor=int(engine.expert_tensor_parallel_size or tensor),
            sequence_parallel=bool(engine.sequence_parallel) and tensor > 1,
        )
    ulysses = OmegaConf.select(actor, "fsdp_config.ulysses_sequence_parallel_size", default=1) or 1
    ulysses = max(int(ulysses), int(OmegaConf.select(actor, "ulysses_sequence_parallel_size", default=1) or 1))
    size = int(OmegaConf.select(actor, "fsdp_config.fsdp_size", default=-1))
    shards = nodes * gpus if size < 0 else size
    return Layout(str(actor.strategy), nodes, gpus, context=ulysses, shards=shards)


def _divides(size: int, what: str, number: int, of: str) -> Iterator[str]:
    if size < 1 or number % size:
        yield f"{what}={size} does not divide {of} ({number})"


def layout_faults(layout: Layout, model: Architecture | None) -> Iterator[str]:
    """What does not divide in the trainer's layout; without a model only what concerns GPUs."""
    role, world = "actor_rollout_ref.actor", f"the {layout.nodes} x {layout.gpus_per_node} GPUs of trainer"
    if layout.engine != "megatron":
        yield from _divides(layout.context, f"{role}.ulysses_sequence_parallel_size", layout.world, world)
        yield from _divides(layout.shards, f"{role}.fsdp_config.fsdp_size", layout.world, world)
        if model:
            yield from _divides(
                layout.context, f"{role}.ulysses_sequence_parallel_size", model.heads, "attention heads"
            )
        return
    key = f"{role}.megatron"
    product = f"{key}: tp {layout.tensor} x pp {layout.pipeline} x cp {layout.context}"
    yield from _divides(layout.model, product, layout.world, world)
    if layout.expert > 1:
        product = f"{key}: ep {layout.expert} x etp {layout.expert_tensor} x pp {layout.pipeline}"
        yield from _divides(layout.expert * layout.expert_tensor * layout.pipeline, product, layout.world, world)
    if model is None:
        return
    yield from _divides(layout.tensor, f"{key}.tensor_model_parallel_size", model.heads, "attention heads")
    if model.kv_heads % layout.tensor and layout.tensor % model.kv_heads:
        yield (
            f"{key}.tensor_model_parallel_size={layout.tensor} is neither a divisor nor a multiple of the "
            f"{model.kv_heads} key-value heads"
        )
    yield from _divides(layout.pipeline, f"{key}.pipeline_model_parallel_size", model.layers, "layers")
    if layout.virtual_pipeline > 1:
        chunks = layout.pipeline * layout.virtual_pipeline
        yield from _divides(
            chunks, f"{key}: pp {layout.pipeline} x vpp {layout.virtual_pipeline}", model.layers, "layers"
        )
    if layout.expert > 1 and not model.experts:
        yield f"{key}.expert_model_parallel_size={layout.expert}, but the model has no experts"
    elif model.experts:
        yield from _divides(layout.expert, f"{key}.expert_model_parallel_size", model.experts, "experts")


def layout_remarks(layout: Layout) -> Iterator[str]:
    """What works, but slowly."""
    if layout.engine == "megatron" and layout.gpus_per_node % layout.tensor:
        yield (
            f"tp {layout.tensor} does not divide the {layout.gpus_per_node} GPUs of a node, so that some "
            "tensor-parallel groups reach across nodes, where every layer waits for the network"
        )
