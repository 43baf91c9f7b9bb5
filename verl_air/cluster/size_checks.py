"""Sizes of a recipe that do not divide, or are too small for one sequence.

The rules are those of verl 0.9.1 (utils/config.py, workers/engine_workers.py, workers/config), megatron-core 0.16
(parallel_state.py, transformer_config.py) and vLLM. Each of them would stop a run after minutes of start-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from verl_air.cluster.layout import (
    ENGINES,
    ParallelLayout,
    StepBatch,
    VllmPool,
    read_batch,
    read_layout,
    read_vllm_pools,
)
from verl_air.cluster.model_shapes import ModelShapes, find_shapes
from verl_air.errors import ConfigError

_ROLE = "actor_rollout_ref"


def check_sizes(config: DictConfig, model_config: str | Path | None = None) -> None:
    """Check the trainer's layout, the batch and vLLM's pools; where a model's sizes are unknown, what concerns GPUs.

    Raises:
        ConfigError: something cannot work; all such things, one per line.
    """
    if str(config.actor_rollout_ref.actor.strategy) not in ENGINES:
        return
    layout = read_layout(config)
    policy, *judges = read_vllm_pools(config)
    shapes = _known_shapes(policy.model, model_config)
    batch = read_batch(config, layout)
    faults = [*_layout_faults(layout, shapes), *_batch_faults(config, batch, layout)]
    faults += _vllm_faults(policy, shapes, batch.sequence_length)
    for judge in judges:
        judge_shapes = shapes if judge.model == policy.model else _known_shapes(judge.model, None)
        faults += _vllm_faults(judge, judge_shapes, judge.longest)
    if faults:
        raise ConfigError("\n".join(faults))


def _known_shapes(model: str, model_config: str | Path | None) -> ModelShapes | None:
    try:
        return find_shapes(model, model_config)
    except ConfigError:
        return None  # the memory plan, which cannot do without them, reports it


def _divides(size: int, what: str, number: int, of: str) -> Iterator[str]:
    if size < 1 or number % size:
        yield f"{what}={size} does not divide {of} ({number})"


def _layout_faults(layout: ParallelLayout, shapes: ModelShapes | None) -> Iterator[str]:
    role, world = f"{_ROLE}.actor", f"the {layout.nodes} x {layout.gpus_per_node} GPUs of trainer"
    if layout.engine != "megatron":
        ulysses = f"{role}.ulysses_sequence_parallel_size"
        yield from _divides(layout.context, ulysses, layout.world, world)
        yield from _divides(layout.shards, f"{role}.fsdp_config.fsdp_size", layout.world, world)
        if shapes:
            yield from _divides(layout.context, ulysses, shapes.heads, "attention heads")
        return
    key, pipeline = f"{role}.megatron", layout.pipeline
    product = f"{key}: tp {layout.tensor} x pp {pipeline} x cp {layout.context}"
    yield from _divides(layout.model, product, layout.world, world)
    if layout.expert > 1:
        product = f"{key}: ep {layout.expert} x etp {layout.expert_tensor} x pp {pipeline}"
        yield from _divides(layout.expert * layout.expert_tensor * pipeline, product, layout.world, world)
    if shapes is None:
        return
    yield from _tensor_parallel_faults(layout.tensor, f"{key}.tensor_model_parallel_size", shapes)
    yield from _divides(pipeline, f"{key}.pipeline_model_parallel_size", shapes.layers, "layers")
    if layout.virtual_pipeline > 1:
        product = f"{key}: pp {pipeline} x vpp {layout.virtual_pipeline}"
        yield from _divides(pipeline * layout.virtual_pipeline, product, shapes.layers, "layers")
    if layout.expert > 1 and not shapes.experts:
        yield f"{key}.expert_model_parallel_size={layout.expert}, but the model has no experts"
    elif shapes.experts:
        yield from _divides(layout.expert, f"{key}.expert_model_parallel_size", shapes.experts, "experts")


def _tensor_parallel_faults(tensor: int, key: str, shapes: ModelShapes) -> Iterator[str]:
    yield from _divides(tensor, key, shapes.heads, "attention heads")
    if shapes.kv_heads % tensor and tensor % shapes.kv_heads:
        yield f"{key}={tensor} is neither a divisor nor a multiple of the {shapes.kv_heads} key-value heads"


def _batch_faults(config: DictConfig, batch: StepBatch, layout: ParallelLayout) -> Iterator[str]:
    actor = f"{_ROLE}.actor"
    if batch.prompts % batch.group_size:
        yield (
            f"data.train_batch_size={batch.prompts} cannot hold whole meta-groups of {batch.group_size} prompts "
            "(air.anchors_per_intent + air.open_per_intent)"
        )
    if batch.mini_batch_prompts > batch.prompts:
        yield f"{actor}.ppo_mini_batch_size={batch.mini_batch_prompts} is above data.train_batch_size={batch.prompts}"
    rows = batch.mini_batch_prompts * batch.completions
    if rows % layout.data:
        yield (
            f"{actor}.ppo_mini_batch_size={batch.mini_batch_prompts} x {batch.completions} completions = {rows} "
            f"trajectories do not divide among the {layout.data} data-parallel ranks"
        )
    elif not batch.dynamic and rows // layout.data % batch.micro_batch:
        yield (
            f"{actor}.ppo_micro_batch_size_per_gpu={batch.micro_batch} does not divide the {rows // layout.data} "
            "trajectories that a data-parallel rank gets of a mini-batch"
        )
    for key in ("actor.ppo_max_token_len_per_gpu", "rollout.log_prob_max_token_len_per_gpu") if batch.dynamic else ():
        budget = int(OmegaConf.select(config, f"{_ROLE}.{key}"))
        if budget * layout.context < batch.sequence_length:
            times = f" x {layout.context} (context parallel)" if layout.context > 1 else ""
            yield (
                f"{_ROLE}.{key}={budget}{times} cannot hold one sequence of {batch.sequence_length} tokens "
                f"(data.max_prompt_length {batch.prompt_length} + data.max_response_length {batch.response_length})"
            )


def _vllm_faults(pool: VllmPool, shapes: ModelShapes | None, length: int) -> Iterator[str]:
    if pool.gpus % (pool.tensor * pool.data):
        product = f"{pool.key}: tensor_model_parallel_size {pool.tensor} x data_parallel_size {pool.data}"
        yield f"{product} does not divide the {pool.gpus} GPUs of its pool"
    if pool.longest < length:
        yield f"{pool.key}.max_model_len={pool.longest} cannot hold one sequence of {length} tokens"
    if shapes is None:
        return
    yield from _tensor_parallel_faults(pool.tensor, f"{pool.key}.tensor_model_parallel_size", shapes)
    if pool.longest > shapes.max_positions:
        yield (
            f"{pool.key}: sequences of {pool.longest} tokens are longer than the model's {shapes.max_positions} "
            "positions"
        )
