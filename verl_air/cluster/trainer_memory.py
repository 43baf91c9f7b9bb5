"""What a GPU of the trainer holds during an update, in bytes by part: with FSDP and with Megatron.

The note of a part is its formula; the sum is an estimate, not a bound. Ours, because no library that is installed
counts Megatron's stages, or verl's micro-batches of tokens.

Sources: the shapes of verl's FSDP2 and Megatron engines; for activations Korthikanti et al., "Reducing Activation
Recomputation in Large Transformer Models" (arXiv 2205.05198), counted anew for gated feed-forward layers, grouped keys
and values, and attention that stores no scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from omegaconf import DictConfig

from verl_air.cluster.layout import ParallelLayout
from verl_air.cluster.model_shapes import ModelShapes

LOGIT_BYTES = 8  # bf16 logits, an fp32 working copy, a bf16 gradient


class MemoryPart(NamedTuple):
    """What one part takes on one GPU."""

    name: str
    bytes: float
    note: str


def total(parts: Iterable[MemoryPart]) -> float:
    """The sum in bytes."""
    return sum(part.bytes for part in parts)


class TrainerSettings(NamedTuple):
    """The trainer's settings that decide its memory. ``tokens``: longest micro-batch on a GPU."""

    tokens: int
    recompute: bool
    fused_head: bool = False
    master_bytes: int = 4
    param_offload: bool = False
    optimizer_offload: bool = False
    unsharded_gradients: bool = False


def read_trainer_settings(config: DictConfig, layout: ParallelLayout) -> TrainerSettings:
    """Read them from a composed recipe.

    With a dynamic batch size a micro-batch holds up to ``ppo_max_token_len_per_gpu`` tokens per GPU: verl multiplies it
    by the context-parallel size, and each of these ranks holds its share (workers/engine/utils.py).
    """
    model, actor, megatron = config.actor_rollout_ref.model, config.actor_rollout_ref.actor, layout.engine == "megatron"
    if actor.use_dynamic_bsz:
        tokens = int(actor.ppo_max_token_len_per_gpu)
    else:
        sequence = int(config.data.max_prompt_length) + int(config.data.max_response_length)
        tokens = -(-int(actor.ppo_micro_batch_size_per_gpu or 1) * sequence // layout.context)
    if megatron:
        engine = actor.megatron
        recompute = engine.override_transformer_config.get("recompute_granularity", None) == "full"
    else:
        engine, recompute = actor.fsdp_config, bool(model.enable_gradient_checkpointing)
    half = not megatron and str(engine.model_dtype) in ("bf16", "bfloat16", "fp16", "float16")
    return TrainerSettings(
        tokens,
        recompute,
        fused_head=bool(model.get("use_fused_kernels", False)),
        master_bytes=2 if half else 4,
        param_offload=bool(engine.param_offload),
        optimizer_offload=bool(engine.optimizer_offload),
        unsharded_gradients=not megatron and bool(engine.use_no_sync_for_gradient_accumulation),
    )


def update_parts(model: ModelShapes, layout: ParallelLayout, settings: TrainerSettings) -> tuple[MemoryPart, ...]:
    """The parts at the peak of an update, on the GPU that needs most."""
    if layout.engine != "megatron":
        return tuple(fsdp_parts(model, layout, settings))
    stages = megatron_stages(model, layout)
    return max((tuple(megatron_parts(model, layout, settings, stage)) for stage in stages), key=total)


def fsdp_parts(model: ModelShapes, layout: ParallelLayout, settings: TrainerSettings) -> Iterator[MemoryPart]:
    """Peak of an update with FSDP: all states sharded, one wrapped group gathered at a time."""
    own, width = model.parameters / layout.shards, settings.master_bytes
    split = f"{width} B x {model.parameters / 1e9:.2f} B parameters / {layout.shards} shards"
    yield MemoryPart("weights", width * own, split)
    yield MemoryPart("gradients", width * own, f"{width} B per parameter, sharded")
    yield MemoryPart("optimizer states", 2 * width * own, f"Adam: 2 x {width} B per parameter, sharded")
    group = max(model.layer, model.embedding)
    yield MemoryPart("gathered weights and gradients", 10 * group, "largest group: 2 x 2 B weights, 2 + 4 B gradient")
    if settings.unsharded_gradients:
        note = "use_no_sync_for_gradient_accumulation: 4 B, whole"
        yield MemoryPart("unsharded gradients", 4.0 * model.parameters, note)
    yield from _activations(model, layout, settings, model.layers, in_flight=1)
    yield from _logits(model, layout, settings)


class PipelineStage(NamedTuple):
    """Parameters on one GPU of a pipeline stage, and the micro-batches whose activations it keeps."""

    name: str
    shared: float
    experts: float
    in_flight: float
    has_head: bool


def megatron_stages(model: ModelShapes, layout: ParallelLayout) -> list[PipelineStage]:
    """The first and the last pipeline stage: one of them needs most."""
    layers = model.layers / layout.pipeline
    experts = layers * model.layer_experts / (layout.expert * layout.expert_tensor)
    shared = (layers * (model.layer - model.layer_experts) + model.embedding) / layout.tensor
    if layout.pipeline == 1:
        return [PipelineStage("the only stage", shared + model.head / layout.tensor, experts, 1, True)]
    # 1F1B: the first stage holds as many micro-batches as there are stages; interleaving adds to that.
    first = float(layout.pipeline)
    if layout.virtual_pipeline > 1:
        first *= 1 + (layout.pipeline - 1) / (layout.pipeline * layout.virtual_pipeline)
    return [
        PipelineStage("the first stage", shared, experts, first, False),
        PipelineStage("the last stage", shared, experts, 1, True),
    ]


def megatron_parts(
    model: ModelShapes, layout: ParallelLayout, settings: TrainerSettings, stage: PipelineStage
) -> Iterator[MemoryPart]:
    """Peak of an update with Megatron and its distributed optimizer on a GPU of ``stage``."""
    own, replicas = stage.shared + stage.experts, layout.data * layout.context
    yield MemoryPart("weights", 2 * own, f"2 B x {own / 1e9:.2f} B parameters on a GPU of {stage.name}")
    yield MemoryPart("gradients", 4 * own, "4 B per parameter (fp32 buffers)")
    states = 12 * (stage.shared / replicas + stage.experts / layout.expert_data)
    note = f"12 B per parameter (fp32 master, two moments) / {replicas} replicas"
    yield MemoryPart("optimizer states", states, note + (f", experts / {layout.expert_data}" if stage.experts else ""))
    yield from _activations(model, layout, settings, model.layers / layout.pipeline, stage.in_flight)
    if stage.has_head:
        yield from _logits(model, layout, settings)


def layer_activation_bytes(model: ModelShapes) -> float:
    """What one layer keeps of one token for its backward pass, in bytes, when nothing is recomputed.

    bf16 inputs and outputs of each matrix product, and fp32 copies inside the two norms; attention as in
    flash-attention, without scores.
    """
    norms_and_residuals = 16 * model.hidden
    attention = 6 * (model.heads + model.kv_heads) * model.head_dim
    blocks = model.experts_per_token or 1
    feed_forward = blocks * 8 * model.feed_forward + (4 * blocks * model.hidden if model.experts else 0)
    return norms_and_residuals + attention + feed_forward


def _activations(
    model: ModelShapes, layout: ParallelLayout, settings: TrainerSettings, kept_layers: float, in_flight: float
) -> Iterator[MemoryPart]:
    # With sequence parallelism all of a layer is split by tp, else only what lies between two matrix products.
    whole = 0 if layout.sequence_parallel else 16 * model.hidden
    layer = whole + (layer_activation_bytes(model) - whole) / layout.tensor
    inputs = 2 * model.hidden / (layout.tensor if layout.sequence_parallel else 1)
    per_layer = inputs if settings.recompute else layer
    yield MemoryPart(
        "activations: layer inputs" if settings.recompute else "activations",
        settings.tokens * per_layer * kept_layers * in_flight,
        f"{settings.tokens} tokens x {per_layer:.0f} B x {kept_layers:g} layers x {in_flight:g} micro-batch(es)",
    )
    if settings.recompute:
        note = f"recomputed in backward: {layer:.0f} B per token"
        yield MemoryPart("activations: one layer", settings.tokens * layer, note)


def _logits(model: ModelShapes, layout: ParallelLayout, settings: TrainerSettings) -> Iterator[MemoryPart]:
    if settings.fused_head:
        return  # computed in chunks, never whole
    vocabulary = model.vocabulary / layout.tensor
    note = f"{settings.tokens} tokens x {vocabulary:.0f} x {LOGIT_BYTES} B"
    yield MemoryPart("logits", settings.tokens * vocabulary * LOGIT_BYTES, note)
