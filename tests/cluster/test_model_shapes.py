"""Parameter counts against the published totals, and against transformers' own modules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from verl_air.cluster.model_shapes import find_shapes, known_models, read_shapes
from verl_air.errors import ConfigError

# (all, without embeddings), in billions, as the model cards state them
CARDS = {
    "Qwen/Qwen2.5-0.5B-Instruct": (0.49, 0.36),
    "Qwen/Qwen2.5-7B-Instruct": (7.61, 6.53),
    "Qwen/Qwen2.5-14B": (14.7, 13.1),
    "Qwen/Qwen2.5-14B-Instruct": (14.7, 13.1),
    "Qwen/Qwen3-8B": (8.2, 6.95),
    "Qwen/Qwen3-30B-A3B": (30.5, 29.9),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (0.135, 0.106),
}


@pytest.mark.parametrize("name", known_models())
def test_counts_are_those_of_the_model_cards(name: str) -> None:
    model = find_shapes(name)
    whole, bare = CARDS[name]
    assert model.parameters / 1e9 == pytest.approx(whole, abs=0.12)
    assert (model.parameters - model.embedding - model.head) / 1e9 == pytest.approx(bare, abs=0.12)


def test_qwen2_5_14b_by_hand() -> None:
    model = find_shapes("Qwen/Qwen2.5-14B")
    attention = 5120 * 5120 * 2 + 5120 * 1024 * 2 + 5120 + 2 * 1024
    feed_forward = 3 * 5120 * 13824
    layer = attention + feed_forward + 2 * 5120
    assert model.layer == layer
    assert model.parameters == 48 * layer + 2 * 152064 * 5120 + 5120 == 14_770_033_664


def test_active_parameters_of_a_mixture_of_experts() -> None:
    model = find_shapes("Qwen/Qwen3-30B-A3B")
    assert model.active_parameters / 1e9 == pytest.approx(3.3, abs=0.06)
    assert model.layer_experts == 128 * 3 * 2048 * 768


def test_keys_and_values_of_a_token() -> None:
    model = find_shapes("Qwen/Qwen2.5-14B")
    assert model.kv_bytes_per_token() == 2 * 48 * 8 * 128 * 2 == 192 * 1024
    assert model.kv_bytes_per_token(4) == 48 * 1024
    assert model.kv_bytes_per_token(16) == model.kv_bytes_per_token(8)  # one head a GPU is the least


SIZES = dict(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, vocab_size=50)
TINY = {
    "llama": dict(intermediate_size=48),
    "mistral": dict(intermediate_size=48, head_dim=8),
    "qwen2": dict(intermediate_size=48, tie_word_embeddings=True),
    "qwen3": dict(intermediate_size=48, head_dim=16),
    "qwen3_moe": dict(moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2, head_dim=8),
}


@pytest.mark.parametrize("family", TINY)
def test_counts_are_those_of_the_real_modules(family: str, tmp_path: Path) -> None:
    """Builds the model with transformers and counts its tensors."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **SIZES, **TINY[family])
    config.save_pretrained(tmp_path)
    real = sum(tensor.numel() for tensor in AutoModelForCausalLM.from_config(config).parameters())
    assert find_shapes(str(tmp_path)).parameters == real


def test_what_cannot_be_planned_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"acme/model: no such model folder.*--model-config"):
        find_shapes("acme/model")
    with pytest.raises(ConfigError, match="model_type='mamba' is not one that can be planned for"):
        read_shapes({"model_type": "mamba"}, "config.json")
    with pytest.raises(ConfigError, match="not a usable model config, KeyError: 'num_attention_heads'"):
        read_shapes({"model_type": "qwen2"}, "config.json")
    with pytest.raises(ConfigError, match="both dense and expert layers"):
        read_shapes({**known_models()["Qwen/Qwen3-30B-A3B"], "mlp_only_layers": [0]}, "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read"):
        find_shapes("any", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(known_models()["Qwen/Qwen3-8B"]))
    assert find_shapes("any", tmp_path) == find_shapes("Qwen/Qwen3-8B")
