"""Sizes that must divide: batches by meta-groups, ranks and micro-batches; GPUs, heads and layers by parallel sizes.

The rules are those of verl 0.9.1 (utils/config.py, workers/engine_workers.py, workers/engine/utils.py) and of
megatron-core 0.16 (parallel_state.py, transformer_config.py). Each would stop a run after minutes of start-up. This is
the only place that checks them; ``verl_air.cluster`` computes numbers for a recipe that passed.
"""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from verl_air.cluster.layout import ENGINES, ParallelLayout, divides, head_faults, read_layout
from verl_air.cluster.model_shapes import ModelShapes, find_shapes
from verl_air.errors import ConfigError

ROLE = "actor_rollout_ref"
ACTOR = f"{ROLE}.actor"


def check_sizes(config: DictConfig, model: ModelShapes | None = None) -> None:
    """Check a composed recipe, with an ``air:`` key or without.

    Args:
        config: the recipe.
        model: sizes of the policy; None leaves what depends on them unchecked.

    Raises:
        ConfigError: something does not divide; the first such thing.
    """
    if str(config.actor_rollout_ref.actor.strategy) not in ENGINES:
        return
    layout = read_layout(config)
    for faults in (_group_faults(config), _parallel_faults(config, layout, model), _batch_faults(config, layout)):
        for fault in faults:
            raise ConfigError(fault)


def check_model_sizes(config: DictConfig, model_config: str | None = None) -> None:
    """:func:`check_sizes` with the sizes of the policy.

    Of a policy that cannot be read they are left unchecked, for ``check_model`` or the memory plan to report.
    """
    try:
        model = find_shapes(str(config.actor_rollout_ref.model.path), model_config)
    except ConfigError:
        model = None
    check_sizes(config, model)


def _number(config: DictConfig, key: str, default: int = 1) -> int:
    return int(OmegaConf.select(config, key, default=default) or default)


def _group_faults(config: DictConfig) -> Iterator[str]:
    """Every batch that is drawn or trained on holds whole meta-groups."""
    air = config.get("air", None)
    if air is None:
        return
    size = int(air.get("anchors_per_intent", 1)) + int(air.get("open_per_intent", 3))
    groups = f"whole meta-groups: a meta-group has {size} prompts (air.anchors_per_intent + air.open_per_intent)"
    batch, mode = int(config.data.train_batch_size), str(config.trainer.v1.trainer_mode).removeprefix("air_")
    if batch % size:
        nearest = max(size, batch // size * size)
        yield f"data.train_batch_size={batch} cannot hold {groups}. Use a multiple, say {nearest}."
    syncs = _number(config, f"trainer.v1.{mode}.parameter_sync_step")
    if batch % syncs or batch // syncs % size:
        parts = f"data.train_batch_size={batch} over parameter_sync_step={syncs} leaves batches"
        yield f"{parts} that cannot hold {groups}."
    drawn = _number(config, "data.gen_batch_size")
    if mode == "sync" and drawn != 1 and drawn % size:
        yield f"data.gen_batch_size={drawn} cannot hold {groups}."


def _parallel_faults(config: DictConfig, layout: ParallelLayout, model: ModelShapes | None) -> Iterator[str]:
    """Parallel sizes divide the trainer's GPUs and what the model has of each thing."""
    gpus = f"the {layout.nodes} x {layout.gpus_per_node} GPUs of trainer"
    if layout.engine != "megatron":
        name = f"{ACTOR}.ulysses_sequence_parallel_size"
        yield from divides(name, layout.context, gpus, layout.gpus)
        if layout.shards < layout.gpus:
            yield from divides(f"{ACTOR}.fsdp_config.fsdp_size", layout.shards, gpus, layout.gpus)
        if model:
            yield from head_faults(name, layout.context, model)
        return
    key, tp, pp, cp = f"{ACTOR}.megatron", layout.tensor, layout.pipeline, layout.context
    vpp, ep, etp = layout.virtual_pipeline, layout.expert, layout.expert_tensor
    yield from divides(f"{key}: tp {tp} x pp {pp} x cp {cp}", tp * pp * cp, gpus, layout.gpus)
    if ep > 1:
        yield from divides(f"{key}: ep {ep} x etp {etp} x pp {pp}", ep * etp * pp, gpus, layout.gpus)
    if model is None:
        return
    yield from head_faults(f"{key}.tensor_model_parallel_size", tp, model)
    if not _UNEVEN & set(OmegaConf.select(config, f"{key}.override_transformer_config", default=None) or ()):
        yield from divides(f"{key}.pipeline_model_parallel_size", pp, "layers", model.layers)
        if vpp > 1:
            yield from divides(f"{key}: pp {pp} x vpp {vpp}", pp * vpp, "layers", model.layers)
    if ep > 1 and not model.experts:
        yield f"{key}.expert_model_parallel_size={ep}, but the model has no experts"
    elif model.experts:
        yield from divides(f"{key}.expert_model_parallel_size", ep, "experts", model.experts)


_UNEVEN = {
    "num_layers_in_first_pipeline_stage",
    "num_layers_in_last_pipeline_stage",
    "account_for_embedding_in_pipeline_split",
    "account_for_loss_in_pipeline_split",
    "pipeline_model_parallel_layout",
}
"""Settings of megatron-core with which pipeline stages differ in size; it checks them itself."""


def _batch_faults(config: DictConfig, layout: ParallelLayout) -> Iterator[str]:
    """Mini-batches divide over data-parallel ranks, and their parts into micro-batches; or a token budget suffices."""
    actor, completions, ranks = config.actor_rollout_ref.actor, int(config.actor_rollout_ref.rollout.n), layout.data
    batch, mini_batch = int(config.data.train_batch_size), int(actor.ppo_mini_batch_size)
    if mini_batch > batch:
        yield f"{ACTOR}.ppo_mini_batch_size={mini_batch} is above data.train_batch_size={batch}"
    if mini_batch * completions % ranks:
        yield (
            f"{ACTOR}.ppo_mini_batch_size={mini_batch} x {completions} completions = {mini_batch * completions} "
            f"trajectories do not divide among the {ranks} data-parallel ranks"
        )
    if actor.use_dynamic_bsz:
        yield from _token_budget_faults(config, layout.context)
        return
    for key, prompts in (
        ("actor.ppo_micro_batch_size_per_gpu", mini_batch),
        # verl fills a batch up to whole mini-batches before it does anything else.
        ("rollout.log_prob_micro_batch_size_per_gpu", -(-batch // mini_batch) * mini_batch),
    ):
        micro, rows = _number(config, f"{ROLE}.{key}"), prompts * completions // ranks
        if rows % micro:
            yield (
                f"{ROLE}.{key}={micro} does not divide the {rows} trajectories that each of {ranks} data-parallel "
                f"rank(s) gets ({prompts} prompts x {completions} completions)"
            )


def _token_budget_faults(config: DictConfig, ranks: int) -> Iterator[str]:
    """A micro-batch holds at least one sequence; verl multiplies the budget by the ranks that share a sequence."""
    prompt, response = int(config.data.max_prompt_length), int(config.data.max_response_length)
    for key in ("actor.ppo_max_token_len_per_gpu", "rollout.log_prob_max_token_len_per_gpu"):
        budget = _number(config, f"{ROLE}.{key}", default=0)
        if budget * ranks < prompt + response:
            times = f" x {ranks} ranks per sequence" if ranks > 1 else ""
            yield (
                f"{ROLE}.{key}={budget}{times} cannot hold one sequence of {prompt + response} tokens "
                f"(data.max_prompt_length {prompt} + data.max_response_length {response})"
            )
