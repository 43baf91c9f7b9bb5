"""A model's hidden state at the end of each prompt, where it begins to answer. torch is imported when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from verl_air.data.schema import PromptMessage as Message
from verl_air.errors import ConfigError, DataError


def prompt_states(
    folder: Path,
    prompts: Sequence[Sequence[Message]],
    *,
    layer: int = -1,
    batch_size: int = 16,
    dtype: str = "float32",
) -> np.ndarray:
    """Hidden states at the last token of each prompt, the assistant's turn opened: float64 [S, D].

    Args:
        folder: Hugging Face folder of a causal language model.
        prompts: chat messages.
        layer: index into transformers' ``hidden_states``: 0 is the embedding, -1 the last layer after the final norm.
        batch_size: prompts a forward pass.
        dtype: torch's name of the type to compute in.

    Raises:
        ConfigError: there is no such layer or type, or the folder cannot be loaded.
        DataError: there is no prompt.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not prompts:
        raise DataError("no prompts")
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ConfigError(f"--dtype {dtype}: torch has no such type; float32 or bfloat16, for example")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: cannot be loaded ({error})") from error
    layers = model.config.num_hidden_layers
    if not -layers - 1 <= layer <= layers:
        raise ConfigError(f"--layer {layer}: the model has layers 0 (the embedding) to {layers}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    texts = [tokenizer.apply_chat_template(list(p), add_generation_prompt=True, tokenize=False) for p in prompts]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    states: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(ids), batch_size):
            batch = ids[start : start + batch_size]
            longest = max(map(len, batch))
            # Padded on the right: with causal attention no real token sees the padding, whatever the positions are.
            input_BT = torch.tensor([[*item, *[0] * (longest - len(item))] for item in batch], device=device)
            mask_BT = torch.tensor([[1] * len(item) + [0] * (longest - len(item)) for item in batch], device=device)
            out = model(input_ids=input_BT, attention_mask=mask_BT, output_hidden_states=True, use_cache=False)
            last_B = torch.tensor([len(item) - 1 for item in batch], device=device)
            state_BD = out.hidden_states[layer][torch.arange(len(batch), device=device), last_B]
            states.append(state_BD.double().cpu().numpy())
    return np.concatenate(states)
