"""How a recipe spreads the policy over GPUs, and the batch of a step, read from verl's keys."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from verl_air.errors import ConfigError

ENGINES = ("fsdp", "fsdp2", "megatron")


@dataclass(frozen=True)
class ParallelLayout:
    """Parallel sizes of the trainer. ``shards``: GPUs that share one copy of the weights (FSDP)."""

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
    def data(self) -> int:
        """Ranks that see different sequences."""
        return self.world // (self.tensor * self.pipeline * self.context)

    @property
    def expert_data(self) -> int:
        """GPUs that hold the same experts."""
        return self.world // (self.expert * self.expert_tensor * self.pipeline)

    def __str__(self) -> str:
        gpus = f"{self.nodes} x {self.gpus_per_node} GPUs"
        if self.engine != "megatron":
            sequence = f", Ulysses {self.context}" if self.context > 1 else ""
            return f"{self.engine} on {gpus}: weights in {self.shards} shards, dp {self.data}{sequence}"
        virtual = f", vpp {self.virtual_pipeline}" if self.virtual_pipeline > 1 else ""
        expert = f", ep {self.expert}, etp {self.expert_tensor}" if self.expert > 1 else ""
        sizes = f"tp {self.tensor}, pp {self.pipeline}{virtual}, cp {self.context}{expert}, dp {self.data}"
        return f"{self.engine} on {gpus}: {sizes}"


def read_layout(config: DictConfig) -> ParallelLayout:
    """The layout of the trainer's workers in a composed recipe.

    Raises:
        ConfigError: the engine is none of FSDP, FSDP2 and Megatron.
    """
    actor = config.actor_rollout_ref.actor
    nodes, gpus = int(config.trainer.nnodes), int(config.trainer.n_gpus_per_node)
    if actor.strategy not in ENGINES:
        raise ConfigError(
            f"actor_rollout_ref.actor.strategy={actor.strategy}: only {', '.join(ENGINES)} can be planned for"
        )
    if actor.strategy == "megatron":
        engine = actor.megatron
        tensor = int(engine.tensor_model_parallel_size)
        return ParallelLayout(
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
    keys = ("fsdp_config.ulysses_sequence_parallel_size", "ulysses_sequence_parallel_size")
    ulysses = max(int(OmegaConf.select(actor, key, default=1) or 1) for key in keys)
    size = int(OmegaConf.select(actor, "fsdp_config.fsdp_size", default=-1))
    return ParallelLayout(str(actor.strategy), nodes, gpus, context=ulysses, shards=nodes * gpus if size < 0 else size)


@dataclass(frozen=True)
class StepBatch:
    """The prompts, completions and tokens of a step. Lengths are the longest that a recipe allows, in tokens."""

    prompts: int
    group_size: int
    completions: int
    mini_batch_prompts: int
    prompt_length: int
    response_length: int
    micro_batch_tokens: int

    @property
    def intents(self) -> int:
        """Meta-groups in a step."""
        return self.prompts // self.group_size

    @property
    def trajectories(self) -> int:
        """Prompts times completions."""
        return self.prompts * self.completions

    @property
    def updates(self) -> int:
        """Optimizer steps in a step."""
        return self.prompts // self.mini_batch_prompts

    @property
    def sequence_length(self) -> int:
        """Prompt and response."""
        return self.prompt_length + self.response_length


def read_batch(config: DictConfig, layout: ParallelLayout) -> StepBatch:
    """The batch of a composed recipe, with the longest micro-batch that a GPU sees.

    With a dynamic batch size a micro-batch holds up to ``ppo_max_token_len_per_gpu`` tokens per GPU: verl multiplies it
    by the context-parallel size, and each of these ranks holds its share (workers/engine/utils.py).
    """
    data, actor, air = config.data, config.actor_rollout_ref.actor, config.get("air", None)
    prompt_length, response_length = int(data.max_prompt_length), int(data.max_response_length)
    if actor.use_dynamic_bsz:
        tokens = int(actor.ppo_max_token_len_per_gpu)
    else:
        tokens = int(actor.ppo_micro_batch_size_per_gpu or 1) * (prompt_length + response_length)
        tokens = -(-tokens // layout.context)
    return StepBatch(
        prompts=int(data.train_batch_size),
        group_size=int(air.get("anchors_per_intent", 1)) + int(air.get("open_per_intent", 3)) if air is not None else 1,
        completions=int(config.actor_rollout_ref.rollout.n),
        mini_batch_prompts=int(actor.ppo_mini_batch_size),
        prompt_length=prompt_length,
        response_length=response_length,
        micro_batch_tokens=tokens,
    )


@dataclass(frozen=True)
class VllmPool:
    """The GPUs on which vLLM serves one model. ``key``: where the recipe says so; ``longest``: sequence, in tokens.

    An engine spans ``tensor`` x ``data`` GPUs; ``data`` replicas share the experts.
    """

    key: str
    model: str
    gpus: int
    tensor: int
    data: int
    utilization: float
    longest: int

    @property
    def engines(self) -> int:
        """Engines in the pool."""
        return self.gpus // (self.tensor * self.data)


def rollout_gpus(config: DictConfig) -> int:
    """GPUs of a rollout pool of its own; 0 where the trainer's GPUs generate."""
    rollout = config.actor_rollout_ref.rollout
    return int(OmegaConf.select(rollout, "nnodes", default=0) or 0) * int(rollout.get("n_gpus_per_node", 0) or 0)


def read_vllm_pools(config: DictConfig) -> tuple[VllmPool, ...]:
    """The policy's pool, and that of a reward model which has GPUs of its own."""
    data, role, judge = config.data, config.actor_rollout_ref, config.reward.reward_model
    trainer = int(config.trainer.nnodes) * int(config.trainer.n_gpus_per_node)
    length = int(data.max_prompt_length) + int(data.max_response_length)
    policy = _vllm_pool(
        role.rollout, "actor_rollout_ref.rollout", str(role.model.path), rollout_gpus(config) or trainer, length
    )
    if not (judge.enable and judge.enable_resource_pool):
        return (policy,)
    length = int(judge.rollout.prompt_length) + int(judge.rollout.response_length)
    gpus = int(judge.nnodes) * int(judge.n_gpus_per_node)
    return policy, _vllm_pool(judge.rollout, "reward.reward_model.rollout", str(judge.model_path), gpus, length)


def _vllm_pool(rollout: DictConfig, key: str, model: str, gpus: int, length: int) -> VllmPool:
    return VllmPool(
        key=key,
        model=model,
        gpus=gpus,
        tensor=int(rollout.tensor_model_parallel_size),
        data=int(rollout.get("data_parallel_size", 1) or 1),
        utilization=float(rollout.gpu_memory_utilization),
        longest=int(rollout.get("max_model_len", None) or length),
    )
