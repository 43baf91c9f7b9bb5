"""Memory of a training GPU and of a vLLM GPU, in bytes by part.

The note of a part is its formula; the sum is an estimate, not a bound.

Sources: the shapes of verl's FSDP2 and Megatron engines; for activations Korthikanti et al., "Reducing Activation
Recomputation in Large Transformer Models" (arXiv 2205.05198), counted anew for gated feed-forward layers, grouped keys
and values, and attention that stores no scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from verl_air.cluster.layout import ParallelLayout, StepBatch, VllmPool
from verl_air.cluster.model_shapes import ModelShapes

GIB = 2**30
# What no formula gives. Verify on your own machine.
TRAINER_OVERHEAD = 4 * GIB  # CUDA context, communication buffers, fragmentation
VLLM_OVERHEAD = 3 * GIB  # CUDA graphs, activations of a prefill, context; vLLM measures its own at start
VLLM_ASLEEP = 2 * GIB  # context and CUDA graphs, which vLLM keeps while it sleeps
LOGIT_BYTES = 8  # bf16 logits, an fp32 working copy, a bf16 gradient


@dataclass(frozen=True)
class MemoryPart:
    """What one part takes on one GPU."""

    name: str
    bytes: float
    note: str


@dataclass(frozen=True)
class TrainerSettings:
    """The trainer's settings that decide its memory. ``tokens``: longest micro-batch on a GPU."""

    tokens: int
    recompute: bool
    fused_head: bool = False
    master_bytes: int = 4
    param_offload: bool = False
    optimizer_offload: bool = False
    unsharded_gradients: bool = False


def layer_activation_bytes(model: ModelShapes) -> float:
    """What one layer keeps of one token for its backward pass, in bytes, when nothing is recomputed.

    bf16 inputs and outputs of each matrix product, and fp32 copies inside the two norms; attention as in
    flash-attention, without scores.
    """
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    norms_and_residuals = 16 * model.hidden
    attention = 6 * (queries + keys)
    blocks = model.experts_per_token or 1
    feed_forward = blocks * 8 * model.feed_forward + (4 * blocks * model.hidden if model.experts else 0)
    return norms_and_residuals + attention + feed_forward


def fsdp_parts(model: ModelShapes, layout: ParallelLayout, settings: TrainerSettings) -> Iterator[MemoryPart]:
    """Peak of an update with FSDP: all states sharded, one wrapped group gathered at a time."""
    own, width = model.parameters / layout.shards, settings.master_bytes
    yield MemoryPart(
        "weights", width * own, f"{width} B x {model.parameters / 1e9:.2f} B parameters / {layout.shards} shards"
    )
    yield MemoryPart("gradients", width * own, f"{width} B per parameter, sharded")
    yield MemoryPart("optimizer states", 2 * width * own, f"Adam: 2 x {width} B per parameter, sharded")
    group = max(model.layer, model.embedding)
    yield MemoryPart("gathered weights and gradients", 10 * group, "largest group: 2 x 2 B weights, 2 + 4 B gradient")
    if settings.unsharded_gradients:
        yield MemoryPart(
            "unsharded gradients", 4.0 * model.parameters, "use_no_sync_for_gradient_accumulation: 4 B, whole"
        )
    yield from _activations(model, layout, settings, kept_layers=model.layers, in_flight=1)
    yield from _logits(model, layout, settings)


@dataclass(frozen=True)
class PipelineStage:
    """Parameters on one GPU of a pipeline stage, and what it keeps alive."""

    name: str
    shared: float
    experts: float
    in_flight: float
    has_head: bool


def megatron_stages(model: ModelShapes, layout: ParallelLayout) -> list[PipelineStage]:
    """The first and the last pipeline stage: one of them needs most."""
    layers = model.layers / layout.pipeline
    shared = layers * model.layer_shared / layout.tensor
    experts = layers * model.layer_experts / (layout.expert * layout.expert_tensor)
    table = model.embedding / layout.tensor
    if layout.pipeline == 1:
        return [PipelineStage("the only stage", shared + table + model.head / layout.tensor, experts, 1, True)]
    # 1F1B: the first stage holds as many micro-batches as there are stages; interleaving adds to that.
    first = float(layout.pipeline)
    if layout.virtual_pipeline > 1:
        first *= 1 + (layout.pipeline - 1) / (layout.pipeline * layout.virtual_pipeline)
    return [
        PipelineStage("the first stage", shared + table, experts, first, False),
        PipelineStage("the last stage", shared + table, experts, 1, True),
    ]


def megatron_parts(
    model: ModelShapes, layout: ParallelLayout, settings: TrainerSettings, stage: PipelineStage
) -> Iterator[MemoryPart]:
    """Peak of an update with Megatron and its distributed optimizer on a GPU of ``stage``."""
    own = stage.shared + stage.experts
    replicas = layout.data * layout.context
    split = f"{own / 1e9:.2f} B parameters on a GPU of {stage.name}"
    yield MemoryPart("weights", 2 * own, f"2 B x {split}")
    yield MemoryPart("gradients", 4 * own, "4 B per parameter (fp32 buffers)")
    states = 12 * (stage.shared / replicas + stage.experts / layout.expert_data)
    note = f"12 B per parameter (fp32 master, two moments) / {replicas} replicas"
    yield MemoryPart("optimizer states", states, note + (f", experts / {layout.expert_data}" if stage.experts else ""))
    layers = model.layers / layout.pipeline
    yield from _activations(model, layout, settings, kept_layers=layers, in_flight=stage.in_flight)
    if stage.has_head:
        yield from _logits(model, layout, settings)


def _activations(
    model: ModelShapes, layout: ParallelLayout, settings: TrainerSettings, *, kept_layers: float, in_flight: float
) -> Iterator[MemoryPart]:
    tokens = settings.tokens
    # With sequence parallelism all of a layer is split by tp, else only what lies between two matrix products.
    whole = 16 * model.hidden
    layer = layer_activation_bytes(model)
    layer = layer / layout.tensor if layout.sequence_parallel else whole + (layer - whole) / layout.tensor
    inputs = 2 * model.hidden / (layout.tensor if layout.sequence_parallel else 1)
    if settings.recompute:
        yield MemoryPart(
            "activations: layer inputs",
            tokens * inputs * kept_layers * in_flight,
            f"{tokens} tokens x {inputs:.0f} B x {kept_layers:g} layers x {in_flight:g} micro-batch(es)",
        )
        yield MemoryPart("activations: one layer", tokens * layer, f"recomputed in backward: {layer:.0f} B per token")
    else:
        yield MemoryPart(
            "activations",
            tokens * layer * kept_layers * in_flight,
            f"{tokens} tokens x {layer:.0f} B x {kept_layers:g} layers x {in_flight:g} micro-batch(es)",
        )


def _logits(model: ModelShapes, layout: ParallelLayout, settings: TrainerSettings) -> Iterator[MemoryPart]:
    if settings.fused_head:
        return  # computed in chunks, never whole
    size = settings.tokens * model.vocabulary / layout.tensor * LOGIT_BYTES
    yield MemoryPart(
        "logits", size, f"{settings.tokens} tokens x {model.vocabulary / layout.tensor:.0f} x {LOGIT_BYTES} B"
    )


def read_trainer_settings(config: DictConfig, batch: StepBatch) -> TrainerSettings:
    """Read them from a composed recipe."""
    model, actor = config.actor_rollout_ref.model, config.actor_rollout_ref.actor
    megatron = actor.strategy == "megatron"
    engine = actor.megatron if megatron else actor.fsdp_config
    if megatron:
        recompute = engine.override_transformer_config.get("recompute_granularity", None) == "full"
    else:
        recompute = bool(model.enable_gradient_checkpointing)
    half = not megatron and str(engine.model_dtype) in ("bf16", "bfloat16", "fp16", "float16")
    return TrainerSettings(
        tokens=batch.micro_batch_tokens,
        recompute=recompute,
        fused_head=bool(model.get("use_fused_kernels", False)),
        master_bytes=2 if half else 4,
        param_offload=bool(engine.param_offload),
        optimizer_offload=bool(engine.optimizer_offload),
        unsharded_gradients=not megatron and bool(engine.use_no_sync_for_gradient_accumulation),
    )


def vllm_parts(pool: VllmPool, model: ModelShapes, gpu_bytes: float) -> list[MemoryPart]:
    """How vLLM divides its share of a GPU; the KV cache gets what is left, and may come out negative."""
    weights = 2 * model.parameters / pool.tensor
    cache = pool.utilization * gpu_bytes - weights - VLLM_OVERHEAD
    token = model.kv_bytes_per_token(pool.tensor)
    fits = max(cache, 0) / (token * pool.longest)
    note = f"{token / 1024:g} KiB per token: {fits:.0f} sequences of {pool.longest} tokens at a time"
    return [
        MemoryPart("vLLM: weights", weights, f"2 B x {model.parameters / 1e9:.2f} B parameters / tp {pool.tensor}"),
        MemoryPart("vLLM: KV cache", cache, note),
        MemoryPart("vLLM: the rest", VLLM_OVERHEAD, "CUDA graphs, activations, context (assumed)"),
    ]


def cache_fault(pool: VllmPool, model: ModelShapes, gpu_bytes: float) -> str | None:
    """Why the KV cache is too small for a single sequence, or None."""
    cache = vllm_parts(pool, model, gpu_bytes)[1].bytes
    needed = model.kv_bytes_per_token(pool.tensor) * pool.longest
    if cache >= needed:
        return None
    return (
        f"{pool.key}: with gpu_memory_utilization={pool.utilization:g} vLLM gets "
        f"{pool.utilization * gpu_bytes / GIB:.1f} GiB per GPU; weights and overhead leave {cache / GIB:.1f} GiB for "
        f"the KV cache, and one sequence of {pool.longest} tokens needs {needed / GIB:.1f}"
    )


def total(parts: Sequence[MemoryPart]) -> float:
    """The sum in bytes."""
    return sum(part.bytes for part in parts)
