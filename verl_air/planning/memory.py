"""Memory of a training GPU, in bytes by part. The note of a part is its formula; the sum is an estimate, not a bound.

Sources: the shapes of verl's FSDP2 and Megatron engines; for activations Korthikanti et al., "Reducing Activation
Recomputation in Large Transformer Models" (arXiv 2205.05198), counted anew for gated feed-forward layers, grouped keys
and values, and attention that stores no scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verl_air.planning.architecture import Architecture
from verl_air.planning.layout import Layout

GIB = 2**30
# What no formula gives: CUDA context, communication buffers, fragmentation. Verify on your own machine.
TRAINER_OVERHEAD = 4 * GIB
ASLEEP = 2 * GIB  # what vLLM keeps while it sleeps: its context and CUDA graphs
LOGIT_BYTES = 8  # bf16 logits, an fp32 working copy, a bf16 gradient


@dataclass(frozen=True)
class Part:
    """Memory of one part on one GPU."""

    name: str
    bytes: float
    note: str


@dataclass(frozen=True)
class Training:
    """Settings of the trainer that decide about memory. ``tokens``: longest micro-batch on a GPU."""

    tokens: int
    recompute: bool
    fused_head: bool = False
    master_bytes: int = 4
    param_offload: bool = False
    optimizer_offload: bool = False
    unsharded_gradients: bool = False


def layer_activation_bytes(model: Architecture) -> float:
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


def fsdp_parts(model: Architecture, layout: Layout, training: Training) -> Iterator[Part]:
    """Peak of an update with FSDP: all states sharded, one wrapped group gathered at a time."""
    own, width = model.parameters / layout.shards, training.master_bytes
    yield Part(
        "weights", width * own, f"{width} B x {model.parameters / 1e9:.2f} B parameters / {layout.shards} shards"
    )
    yield Part("gradients", width * own, f"{width} B a parameter, sharded")
    yield Part("optimizer states", 2 * width * own, f"Adam: 2 x {width} B a parameter, sharded")
    group = max(model.layer, model.embedding)
    yield Part("gathered weights and gradients", 10 * group, "largest group: 2 x 2 B weights, 2 + 4 B gradient")
    if training.unsharded_gradients:
        yield Part("unsharded gradients", 4.0 * model.parameters, "use_no_sync_for_gradient_accumulation: 4 B, whole")
    yield from _activations(model, layout, training, kept_layers=model.layers, in_flight=1)
    yield from _logits(model, layout, training)


@dataclass(frozen=True)
class Stage:
    """Parameters on one GPU of a pipeline stage, and what it keeps alive."""

    name: str
    shared: float
    experts: float
    in_flight: float
    has_head: bool


def megatron_stages(model: Architecture, layout: Layout) -> list[Stage]:
    """The first and the last pipeline stage: one of them needs most."""
    layers = model.layers / layout.pipeline
    shared = layers * model.layer_shared / layout.tensor
    experts = layers * model.layer_experts / (layout.expert * layout.expert_tensor)
    table = model.embedding / layout.tensor
    if layout.pipeline == 1:
        return [Stage("the only stage", shared + table + model.head / layout.tensor, experts, 1, True)]
    # 1F1B: the first stage holds as many micro-batches as there are stages; interleaving adds to that.
    first = float(layout.pipeline)
    if layout.virtual_pipeline > 1:
        first *= 1 + (layout.pipeline - 1) / (layout.pipeline * layout.virtual_pipeline)
    return [
        Stage("the first stage", shared + table, experts, first, False),
        Stage("the last stage", shared + table, experts, 1, True),
    ]


def megatron_parts(model: Architecture, layout: Layout, training: Training, stage: Stage) -> Iterator[Part]:
    """Peak of an update with Megatron and its distributed optimizer on a GPU of ``stage``."""
    own = stage.shared + stage.experts
    replicas = layout.data * layout.context
    split = f"{own / 1e9:.2f} B parameters on a GPU of {stage.name}"
    yield Part("weights", 2 * own, f"2 B x {split}")
    yield Part("gradients", 4 * own, "4 B a parameter (fp32 buffers)")
    states = 12 * (stage.shared / replicas + stage.experts / layout.expert_data)
    note = f"12 B a parameter (fp32 master, two moments) / {replicas} replicas"
    yield Part("optimizer states", states, note + (f", experts / {layout.expert_data}" if stage.experts else ""))
    layers = model.layers / layout.pipeline
    yield from _activations(model, layout, training, kept_layers=layers, in_flight=stage.in_flight)
    if stage.has_head:
        yield from _logits(model, layout, training)


def _activations(
    model: Architecture, layout: Layout, training: Training, *, kept_layers: float, in_flight: float
) -> Iterator[Part]:
    tokens = training.tokens
    # With sequence parallelism all of a layer is split by tp, else only what lies between two matrix products.
    whole = 16 * model.hidden
    layer = layer_activation_bytes(model)
    layer = layer / layout.tensor if layout.sequence_parallel else whole + (layer - whole) / layout.tensor
    inputs = 2 * model.hidden / (layout.tensor if layout.sequence_parallel else 1)
    if training.recompute:
        yield Part(
            "activations: layer inputs",
            tokens * inputs * kept_layers * in_flight,
            f"{tokens} tokens x {inputs:.0f} B x {kept_layers:g} layers x {in_flight:g} micro-batch(es)",
        )
        yield Part("activations: one layer", tokens * layer, f"recomputed in backward: {layer:.0f} B a token")
    else:
        yield Part(
            "activations",
            tokens * layer * kept_layers * in_flight,
            f"{tokens} tokens x {layer:.0f} B x {kept_layers:g} layers x {in_flight:g} micro-batch(es)",
        )


def _logits(model: Architecture, layout: Layout, training: Training) -> Iterator[Part]:
    if training.fused_head:
        return  # computed in chunks, never whole
    size = training.tokens * model.vocabulary / layout.tensor * LOGIT_BYTES
    yield Part("logits", size, f"{training.tokens} tokens x {model.vocabulary / layout.tensor:.0f} x {LOGIT_BYTES} B")


def total(parts: Sequence[Part]) -> float:
    """Their sum in bytes."""
    return sum(part.bytes for part in parts)
