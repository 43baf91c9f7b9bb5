"""The parallel sizes of a recipe's trainer, and what each size must divide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from verl_air.cluster.model_shapes import ModelShapes
from verl_air.errors import ConfigError

ENGINES = ("fsdp", "fsdp2", "megatron")


@dataclass(frozen=True)
class ParallelLayout:
    """Parallel sizes. ``context``: ranks that share each sequence, with FSDP those of Ulysses. ``shards``: GPUs that
    share one copy of the weights (FSDP)."""

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
    def gpus(self) -> int:
        """All GPUs of the trainer."""
        return self.nodes * self.gpus_per_node

    @property
    def data(self) -> int:
        """Ranks that see different sequences."""
        return self.gpus // (self.tensor * self.pipeline * self.context)

    @property
    def expert_data(self) -> int:
        """Ranks that hold the same experts."""
        return self.gpus // (self.expert * self.expert_tensor * self.pipeline)

    def __str__(self) -> str:
        trainer = f"{self.engine} on {self.nodes} x {self.gpus_per_node} GPUs"
        if self.engine != "megatron":
            sequence = f", Ulysses {self.context}" if self.context > 1 else ""
            return f"{trainer}: weights in {self.shards} shards, dp {self.data}{sequence}"
        virtual = f", vpp {self.virtual_pipeline}" if self.virtual_pipeline > 1 else ""
        expert = f", ep {self.expert}, etp {self.expert_tensor}" if self.expert > 1 else ""
        return f"{trainer}: tp {self.tensor}, pp {self.pipeline}{virtual}, cp {self.context}{expert}, dp {self.data}"


def read_layout(config: DictConfig) -> ParallelLayout:
    """The layout of the trainer's workers in a composed recipe.

    Raises:
        ConfigError: the engine is none of FSDP, FSDP2 and Megatron.
    """
    actor, engine = config.actor_rollout_ref.actor, str(config.actor_rollout_ref.actor.strategy)
    nodes, gpus = int(config.trainer.nnodes), int(config.trainer.n_gpus_per_node)

    def size(key: str, default: int = 1) -> int:
        return int(OmegaConf.select(actor, key, default=None) or default)

    if engine not in ENGINES:
        raise ConfigError(f"actor_rollout_ref.actor.strategy={engine}: only {', '.join(ENGINES)} can be planned for")
    if engine != "megatron":
        shards = int(OmegaConf.select(actor, "fsdp_config.fsdp_size", default=-1))
        return ParallelLayout(
            engine,
            nodes,
            gpus,
            context=max(map(size, ("fsdp_config.ulysses_sequence_parallel_size", "ulysses_sequence_parallel_size"))),
            shards=nodes * gpus if shards < 0 else shards,
        )
    tensor = size("megatron.tensor_model_parallel_size")
    return ParallelLayout(
        engine,
        nodes,
        gpus,
        tensor=tensor,
        pipeline=size("megatron.pipeline_model_parallel_size"),
        virtual_pipeline=size("megatron.virtual_pipeline_model_parallel_size"),
        context=size("megatron.context_parallel_size"),
        expert=size("megatron.expert_model_parallel_size"),
        expert_tensor=size("megatron.expert_tensor_parallel_size", tensor),
        sequence_parallel=bool(size("megatron.sequence_parallel", 0)) and tensor > 1,
    )


def divides(what: str, size: int, of: str, number: int) -> Iterator[str]:
    """The fault of a size that does not divide a number of things, if it is one."""
    if size < 1 or number % size:
        yield f"{what}={size} does not divide {of} ({number})"


def head_faults(what: str, size: int, model: ModelShapes) -> Iterator[str]:
    """Heads are split over ``size`` GPUs; key-value heads may be replicated instead."""
    yield from divides(what, size, "attention heads", model.heads)
    if model.kv_heads % size and size % model.kv_heads:
        yield f"{what}={size} is neither a divisor nor a multiple of {model.kv_heads} kv heads"
