"""A decoder's sizes, read from a Hugging Face ``config.json``, and how many parameters each part has.

Dense and mixture-of-experts decoders with gated feed-forward layers (Llama, Mistral, Qwen2, Qwen2-MoE without shared
experts, Qwen3, Qwen3-MoE). Norms, router and biases are counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from verl_air.errors import ConfigError

# model_type -> (do q, k and v have biases, are q and k normalised per head)
FAMILIES = {
    "llama": (False, False),
    "mistral": (False, False),
    "qwen2": (True, False),
    "qwen3": (False, True),
    "qwen3_moe": (False, True),
}


@dataclass(frozen=True)
class ModelShapes:
    """Sizes of a decoder; every count is of parameters."""

    family: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    max_positions: int
    experts: int = 0
    experts_per_token: int = 0

    @property
    def embedding(self) -> int:
        """The table of input embeddings; the output head is another one of this size unless it is tied."""
        return self.vocabulary * self.hidden

    @property
    def largest_tensor(self) -> int:
        """Parameters of the largest tensor: embeddings, a joined gate and up projection, or all experts of a layer."""
        blocks = 2 * self.hidden * self.feed_forward * max(self.experts, 1)
        return max(self.embedding, blocks, self.hidden * (self.heads + 2 * self.kv_heads) * self.head_dim)

    @property
    def head(self) -> int:
        """What the output head adds."""
        return 0 if self.tied else self.embedding

    @property
    def attention(self) -> int:
        """Attention of a layer: projections, biases, norms of queries and keys, and the norm before it."""
        biased, normalised = FAMILIES.get(self.family, (False, False))
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        weights = self.hidden * (2 * queries + 2 * keys)
        return weights + biased * (queries + 2 * keys) + normalised * 2 * self.head_dim + self.hidden

    @property
    def expert(self) -> int:
        """One gated feed-forward block: three matrices."""
        return 3 * self.hidden * self.feed_forward

    @property
    def layer_shared(self) -> int:
        """Parameters of a layer that are not experts: attention, norms, and the router or the dense block."""
        return self.attention + self.hidden + (self.hidden * self.experts if self.experts else self.expert)

    @property
    def layer_experts(self) -> int:
        """Parameters of a layer's experts; 0 in a dense model."""
        return self.experts * self.expert

    @property
    def layer(self) -> int:
        """All parameters of a layer."""
        return self.layer_shared + self.layer_experts

    @property
    def parameters(self) -> int:
        """All parameters of the model."""
        return self.layers * self.layer + self.embedding + self.head + self.hidden

    @property
    def active_parameters(self) -> int:
        """Parameters that process a token: all but the experts it is not routed to."""
        return self.parameters - self.layers * (self.experts - self.experts_per_token) * self.expert

    def kv_bytes_per_token(self, tensor_parallel: int = 1, width: int = 2) -> int:
        """Bytes of one token's keys and values in all layers, on one GPU; heads are replicated once they run out."""
        heads = max(self.kv_heads // tensor_parallel, 1)
        return 2 * self.layers * heads * self.head_dim * width


def read_shapes(config: Mapping[str, Any], source: str, *, approximate: bool = False) -> ModelShapes:
    """Read the contents of a ``config.json``.

    Args:
        approximate: take any family with the usual keys, also those of a multimodal model's text part; biases and extra
            norms of a family that is not known here are then not counted.

    Raises:
        ConfigError: a size is missing, or the model family is not known here.
    """
    config = config.get("text_config", config) if approximate else config
    family = str(config.get("model_type"))
    if family not in FAMILIES and not approximate:
        raise ConfigError(
            f"{source}: model_type={family!r} is not one that can be planned for ({', '.join(sorted(FAMILIES))})"
        )
    try:
        experts = int(config.get("num_experts") or config.get("num_local_experts") or 0)
        if experts and (int(config.get("decoder_sparse_step", 1)) != 1 or config.get("mlp_only_layers")):
            raise ConfigError(f"{source}: models with both dense and expert layers cannot be planned for")
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return ModelShapes(
            family=family,
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            feed_forward=int(config["moe_intermediate_size" if experts else "intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            max_positions=int(config["max_position_embeddings"]),
            experts=experts,
            experts_per_token=int(config["num_experts_per_tok"]) if experts else 0,
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{source}: not a usable model config, {type(error).__name__}: {error}") from error


@cache
def known_models() -> dict[str, dict[str, Any]]:
    """The sizes of published models that recipes name (``models.yaml``)."""
    text = files("verl_air.cluster").joinpath("models.yaml").read_text(encoding="utf-8")
    models: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return models


def find_shapes(model: str, model_config: str | Path | None = None, *, approximate: bool = False) -> ModelShapes:
    """The sizes of a recipe's model: from ``model_config``, its folder, ``models.yaml``, or the hub.

    The hub is asked only with ``approximate`` (see :func:`read_shapes`).

    Raises:
        ConfigError: there is no such file, or the model is in none of the three.
    """
    if model_config is not None:
        path = Path(model_config)
        path = path / "config.json" if path.is_dir() else path
    else:
        path = Path(model).expanduser() / "config.json"
        if not path.is_file():
            if model in known_models():
                return read_shapes(known_models()[model], model)
            if approximate and (found := _hub_config(model)):
                return read_shapes(json.loads(Path(found).read_text(encoding="utf-8")), model, approximate=True)
            raise ConfigError(
                f"{model}: no such model folder, and not one of the models whose sizes are known here "
                f"({', '.join(known_models())}). Give its config.json with --model-config."
            )
    try:
        return read_shapes(json.loads(path.read_text(encoding="utf-8")), str(path), approximate=approximate)
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a model's config.json: {error}") from error


@cache
def _hub_config(model: str) -> str | None:
    """The ``config.json`` of a hub model, from the cache or downloaded; None where there is none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return str(hf_hub_download(model, "config.json"))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError):
        return None
