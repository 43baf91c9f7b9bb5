"""A model's sizes: those of its ``config.json``, and the parameters that transformers makes of it, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from verl_air.errors import ConfigError


@dataclass(frozen=True)
class ModelShapes:
    """Sizes of a decoder. ``parameters`` and the counts below it are numbers of parameters.

    ``head``: of the output head, 0 where it is the input embedding again (tied). ``expert_parameters``: of all experts
    in all layers. A layer is the mean of all, so that what is outside of layers (norms, a vision tower) is spread.
    """

    family: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_positions: int
    experts: int
    experts_per_token: int
    parameters: int
    embedding: int
    head: int
    expert_parameters: int
    largest_tensor: int

    @property
    def layer(self) -> float:
        """A layer."""
        return (self.parameters - self.embedding - self.head) / self.layers

    @property
    def layer_experts(self) -> float:
        """A layer's experts; 0 in a dense model."""
        return self.expert_parameters / self.layers

    @property
    def active_parameters(self) -> int:
        """What processes a token: all but the experts that it is not routed to."""
        idle = self.experts - self.experts_per_token
        return self.parameters - (self.expert_parameters * idle // self.experts if self.experts else 0)

    def kv_bytes_per_token(self, tensor_parallel: int = 1, width: int = 2) -> int:
        """Bytes of one token's keys and values in all layers, on one GPU; heads are replicated once they run out."""
        return 2 * self.layers * max(self.kv_heads // tensor_parallel, 1) * self.head_dim * width


def read_shapes(config: Any, source: str) -> ModelShapes:
    """The sizes of a ``transformers.PretrainedConfig``.

    Raises:
        ConfigError: transformers cannot build the model, or it is not a decoder with attention.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

    kind = AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModelForImageTextToText
    try:
        with torch.device("meta"):
            model = kind.from_config(config)
        text = config.get_text_config()
        counts = {name: tensor.numel() for name, tensor in model.named_parameters()}
        embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings()
        experts = _first(text, "num_experts", "num_local_experts", "n_routed_experts")
        return ModelShapes(
            family=text.model_type,
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            feed_forward=_first(text, *["moe_intermediate_size"] * bool(experts), "intermediate_size")
            or 4 * text.hidden_size,
            heads=text.num_attention_heads,
            kv_heads=_first(text, "num_key_value_heads", "num_attention_heads"),
            head_dim=_first(text, "head_dim") or text.hidden_size // text.num_attention_heads,
            vocabulary=text.vocab_size,
            max_positions=text.max_position_embeddings,
            experts=experts,
            experts_per_token=_first(text, "num_experts_per_tok"),
            parameters=sum(counts.values()),
            embedding=embedding.numel(),
            head=0 if output is None or output.weight is embedding else output.weight.numel(),
            expert_parameters=sum(number for name, number in counts.items() if ".experts." in name),
            largest_tensor=max(counts.values()),
        )
    except (AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{source}: model_type={config.model_type!r} cannot be planned for: {reason}") from error


def _first(config: Any, *names: str) -> int:
    """The first of these sizes that a config has; 0 if none."""
    return next((size for name in names if (size := getattr(config, name, None))), 0)


@cache
def known_models() -> dict[str, dict[str, Any]]:
    """The configs of published models that recipes name (``models.yaml``), so that these need no hub."""
    text = files("verl_air.cluster").joinpath("models.yaml").read_text(encoding="utf-8")
    models: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return models


def find_shapes(model: str, model_config: str | Path | None = None) -> ModelShapes:
    """The sizes of a recipe's model: from ``model_config``, its folder, ``models.yaml``, or the hub.

    Raises:
        ConfigError: there is no such file or model, or see :func:`read_shapes`.
    """
    path = Path(model_config or model).expanduser()
    file = path / "config.json" if path.is_dir() else path
    if file.is_file():
        found = _shapes_in(str(path), file.stat().st_mtime_ns)
    elif model_config is not None:
        raise ConfigError(f"{model_config}: cannot be read as a model's config.json: there is no such file")
    else:
        found = _shapes_of_known(model) if model in known_models() else _shapes_in(model)
    if found is None:
        raise ConfigError(
            f"{model}: no such model folder, not found on the hub or in its cache, and not one of "
            f"the models whose sizes are known here ({', '.join(known_models())}). Give its config.json with "
            "--model-config."
        )
    return found


@cache
def _shapes_of_known(model: str) -> ModelShapes:
    from transformers import AutoConfig

    return read_shapes(AutoConfig.for_model(**known_models()[model]), model)


@cache
def _shapes_in(source: str, changed: int | None = None) -> ModelShapes | None:
    """Of a folder, a ``config.json`` or a hub name; None where there is none. ``changed``: when, for the cache."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        if changed is None and isinstance(error, OSError):
            return None
        raise ConfigError(
            f"{source}: cannot be read as a model's config.json: {' '.join(str(error).split())}"
        ) from error
    return read_shapes(config, source)
