"""Parameter counts against the published totals and by hand, for models that need no hub and for any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from verl_air.cluster.model_shapes import find_shapes, known_models, read_shapes
from verl_air.errors import ConfigError

# (all, without embeddings, active), in billions, as the model cards state them
CARDS = {
    "Qwen/Qwen2.5-0.5B-Instruct": (0.49, 0.36, 0.49),
    "Qwen/Qwen2.5-7B-Instruct": (7.61, 6.53, 7.61),
    "Qwen/Qwen2.5-14B": (14.7, 13.1, 14.7),
    "Qwen/Qwen2.5-14B-Instruct": (14.7, 13.1, 14.7),
    "Qwen/Qwen3-8B": (8.2, 6.95, 8.2),
    "Qwen/Qwen3-30B-A3B": (30.5, 29.9, 3.3),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (0.135, 0.106, 0.135),
}


@pytest.mark.parametrize("name", known_models())
def test_counts_are_those_of_the_model_cards(name: str) -> None:
    model = find_shapes(name)
    counts = (model.parameters, model.parameters - model.embedding - model.head, model.active_parameters)
    assert [count / 1e9 for count in counts] == pytest.approx(CARDS[name], abs=0.12)


def test_qwen2_5_14b_by_hand() -> None:
    model = find_shapes("Qwen/Qwen2.5-14B")
    attention = 5120 * 5120 * 2 + 5120 * 1024 * 2 + 5120 + 2 * 1024
    layer = attention + 3 * 5120 * 13824 + 2 * 5120
    assert model.parameters == 48 * layer + 2 * 152064 * 5120 + 5120 == 14_770_033_664
    assert model.layer == layer + 5120 / 48  # the last norm
    assert model.embedding == model.head == model.largest_tensor == 152064 * 5120
    assert model.kv_bytes_per_token() == 2 * 48 * 8 * 128 * 2 == 192 * 1024
    assert model.kv_bytes_per_token(4) == 48 * 1024
    assert model.kv_bytes_per_token(16) == model.kv_bytes_per_token(8)  # one head per GPU is the least


SIZES = dict(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, vocab_size=50, max_position_embeddings=64)
TEXT = dict(model_type="qwen3_vl_text", **SIZES, intermediate_size=48, num_key_value_heads=2, head_dim=8)
VISION = dict(depth=1, hidden_size=16, num_heads=2, intermediate_size=16, out_hidden_size=32)
FAMILIES: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {  # kv heads, head size, all experts' parameters
    "llama": (dict(SIZES, intermediate_size=48, num_key_value_heads=2), (2, 8, 0)),
    "gemma3_text": (dict(SIZES, intermediate_size=48, num_key_value_heads=2, head_dim=16), (2, 16, 0)),
    "gpt2": (dict(n_layer=2, n_embd=32, n_head=4, vocab_size=50, n_positions=64), (4, 8, 0)),
    "qwen3_moe": (
        dict(SIZES, moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2, num_key_value_heads=2, head_dim=8),
        (2, 8, 2 * 4 * 3 * 32 * 24),
    ),
    "qwen3_vl": (dict(text_config=TEXT, vision_config=VISION), (2, 8, 0)),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_any_family_that_transformers_has(family: str, tmp_path: Path) -> None:
    options, expected = FAMILIES[family]
    AutoConfig.for_model(family, **options).save_pretrained(tmp_path)
    model = find_shapes(str(tmp_path))
    assert (model.layers, model.hidden, model.heads, model.vocabulary, model.max_positions) == (2, 32, 4, 50, 64)
    assert (model.kv_heads, model.head_dim, model.expert_parameters) == expected
    assert model == find_shapes("any", tmp_path / "config.json")


FAULTS = {
    "{": r"cannot be read as a model's config\.json: .*config\.json' is not a valid JSON file",
    json.dumps({"model_type": "gemma9"}): r"cannot be read .*model type `gemma9` but Transformers does not recognize",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_config_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=FAULTS[text]) as caught:
        find_shapes("any", tmp_path)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_planned_for_is_named() -> None:
    with pytest.raises(ConfigError, match=r"acme/model: no such model folder, not found on the hub.*--model-config"):
        find_shapes("acme/model")
    with pytest.raises(ConfigError, match=r"model_type='mamba' cannot be planned for: .*'num_attention_heads'"):
        read_shapes(AutoConfig.for_model("mamba", num_hidden_layers=1, hidden_size=8, vocab_size=9), "here")
