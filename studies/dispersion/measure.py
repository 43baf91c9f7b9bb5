"""A model's hidden states, and how far apart they are for the prompts of one intent.

The paper reports that this dispersion falls (from 86.47 to 71.54) and leaves open what exactly it is. Here: the mean
Euclidean distance of a meta-group's hidden states from their centroid, averaged over meta-groups. Since a model whose
states all shrink would look better by that number alone, the same distances are also given relative to those of all
prompts from the centroid of all of them: 0 means that prompts of one intent are the same to the model, sqrt(1 - 1/S)
that the S prompts of an intent are as far apart as any prompts (a centroid of few points is close to each of them).

Axes: Z intents, S prompts, D width of the model, B resamples or prompts of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verl_air.data.schema import PromptMessage
from verl_air.errors import ConfigError, DataError
from verl_air.evaluation import LEVEL, Estimate, resample


def prompt_states(
    folder: Path,
    prompts: Sequence[Sequence[PromptMessage]],
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
        batch_size: prompts per forward pass.
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


@dataclass(frozen=True)
class Dispersion:
    """Of meta-groups with several prompts.

    absolute_Z: mean distance from the meta-group's centroid. size_Z: prompts. groups: names [Z]. overall: mean distance
    of all prompts from one centroid.
    """

    absolute_Z: np.ndarray
    size_Z: np.ndarray
    groups: tuple[str, ...]
    overall: float

    @property
    def relative_Z(self) -> np.ndarray:
        """Share of the overall distance; 0 where all prompts are alike."""
        return self.absolute_Z / self.overall if self.overall > 0 else np.zeros_like(self.absolute_Z)

    @property
    def unrelated(self) -> float:
        """The relative dispersion to expect of prompts that have nothing in common, in meta-groups of these sizes."""
        return float(np.sqrt(1 - 1 / self.size_Z).mean())


def dispersion_of(hidden_SD: np.ndarray, group_S: Sequence[str]) -> Dispersion:
    """Dispersion of hidden states within meta-groups.

    Args:
        hidden_SD: one state per prompt.
        group_S: the meta-group of each prompt; any order.

    Raises:
        DataError: no meta-group has two prompts, or a state is not finite.
    """
    hidden_SD = np.asarray(hidden_SD, dtype=np.float64)
    if not np.isfinite(hidden_SD).all():
        raise DataError("a hidden state is not finite; try --dtype float32")
    names, of_S = np.unique(np.asarray(group_S, dtype=object).astype(str), return_inverse=True)
    size_Z = np.bincount(of_S, minlength=len(names))
    centroid_ZD = np.zeros((len(names), hidden_SD.shape[1]))
    np.add.at(centroid_ZD, of_S, hidden_SD)
    centroid_ZD /= size_Z[:, None]
    distance_S = np.linalg.norm(hidden_SD - centroid_ZD[of_S], axis=1)
    absolute_Z = np.bincount(of_S, weights=distance_S, minlength=len(names)) / size_Z
    several_Z = size_Z > 1
    if not several_Z.any():
        raise DataError("no meta-group has two prompts: there is nothing to compare")
    overall = float(np.linalg.norm(hidden_SD - hidden_SD.mean(axis=0), axis=1).mean())
    return Dispersion(absolute_Z[several_Z], size_Z[several_Z], tuple(map(str, names[several_Z])), overall)


def mean_with_interval(values_Z: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean over meta-groups, by a bootstrap over them; without an interval where there are fewer than two."""
    n = len(values_Z)
    value = float(values_Z.mean())
    if n < 2:
        return Estimate(value, None, None, n, "none")
    means_B = resample(np.asarray(values_Z, dtype=float)[None])[0] / (n - 1)
    low, high = np.quantile(means_B, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(low), float(high), n, "bootstrap")


def paired_difference(a: Dispersion, b: Dispersion, relative: bool, level: float = LEVEL) -> Estimate:
    """b - a over the same meta-groups.

    Raises:
        DataError: their meta-groups differ.
    """
    if a.groups != b.groups:
        raise DataError("the two dispersions are of different meta-groups: measure both models on the same files")
    difference_Z = b.relative_Z - a.relative_Z if relative else b.absolute_Z - a.absolute_Z
    return mean_with_interval(difference_Z, level)
