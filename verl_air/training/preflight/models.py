"""Do the models fit their tokenizers and the recipe's lengths? Config and tokenizer files are read, never weights.

A model that is named as on the hub is looked up in the hub's cache, or at the hub.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from verl_air.errors import ConfigError

POLICY, JUDGE = "actor_rollout_ref.model.path", "reward.reward_model.model_path"
_VOCABULARY_PADDING = 0.05
"""Share of a vocabulary that may be without a token: it is padded to a size that divides well."""


class RecipeModel(NamedTuple):
    """A model of a recipe. name: its key and path. config: of its language model."""

    name: str
    config: Any
    tokenizer: Any

    @property
    def context(self) -> int | None:
        """Tokens that the model was made for; None where it says nothing, or its positions are scaled."""
        scaling = getattr(self.config, "rope_parameters", None) or getattr(self.config, "rope_scaling", None) or {}
        if scaling.get("rope_type", "default") != "default":
            return None
        positions: int | None = getattr(self.config, "max_position_embeddings", None)
        return positions


def check_model(config: DictConfig) -> list[str]:
    """The policy, and the judge that verl serves, are there and fit their tokenizers and the recipe's lengths.

    Returns:
        A line for each model that could not be looked up.

    Raises:
        ConfigError: a model is missing, or would fail after minutes: another model's tokenizer, no chat template for
            the policy's prompts, a context that is too short.
    """
    length = int(config.data.max_prompt_length) + int(config.data.max_response_length)
    lengths = {POLICY: (length, "data.max_prompt_length + data.max_response_length")}
    if config.reward.reward_model.enable:
        length = int(config.reward.reward_model.rollout.max_model_len or 0)
        lengths[JUDGE] = (length, "reward.reward_model.rollout.max_model_len")
    notes = []
    for key, (length, named) in lengths.items():
        model = read_model(config, key)
        if model is None:
            notes.append(
                f"{key}={OmegaConf.select(config, key)}: its tokenizer, chat template, vocabulary and context were not "
                "checked: it is not on this machine, and cannot be looked up from here"
            )
            continue
        words, vocabulary = len(model.tokenizer), int(model.config.vocab_size)
        if not (1 - _VOCABULARY_PADDING) * vocabulary <= words <= vocabulary:
            raise ConfigError(
                f"{model.name}: the tokenizer has {words} tokens and the model {vocabulary}: not its own one"
            )
        if model.context is not None and length > model.context:
            raise ConfigError(f"{model.name}: its context of {model.context} tokens is shorter than {named} = {length}")
        if key == POLICY:
            _check_policy(model, vocabulary - words)
    return notes


def _check_policy(model: RecipeModel, without_token: int) -> None:
    if not model.tokenizer.chat_template:
        raise ConfigError(
            f"{model.name}: its tokenizer has no chat template to render prompts with. Take the model's chat version, "
            "or set actor_rollout_ref.model.custom_chat_template."
        )
    if without_token:
        warnings.warn(
            f"{model.name}: {without_token} of the model's {model.config.vocab_size} token ids are not in its "
            "tokenizer; if sampled, they decode to nothing",
            stacklevel=3,
        )


def read_model(config: DictConfig, key: str) -> RecipeModel | None:
    """The model that a key of the recipe names, with the chat template that verl gives it.

    Returns:
        None if neither the hub's cache has it nor the hub can be reached; so, too, for a remote path.

    Raises:
        ConfigError: there is no such model, or its files cannot be read.
    """
    from transformers import AutoConfig, AutoTokenizer

    settings = OmegaConf.select(config, key.rpartition(".")[0])
    if not OmegaConf.select(config, key):
        raise ConfigError(f"{key} is not set")
    path = os.path.expanduser(str(OmegaConf.select(config, key)))
    is_hub_name = path.count("/") == 1 and not path.startswith((".", "/")) and not Path(path.split("/")[0]).exists()
    if "://" in path:
        return None
    if not is_hub_name and not (Path(path) / "config.json").is_file():
        raise ConfigError(f"{key}={path}: no such model folder (it should hold a config.json)")
    options = {
        "trust_remote_code": bool(settings.get("trust_remote_code", False)),
        "local_files_only": is_hub_name and not _at_hub(key, path),
    }
    try:
        model = AutoConfig.from_pretrained(path, **options).get_text_config()
        named = os.path.expanduser(str(settings.get("tokenizer_path") or path))
        tokenizer = AutoTokenizer.from_pretrained(named, **options)
    except (OSError, ValueError) as error:
        if options["local_files_only"]:
            return None
        raise ConfigError(
            f"{key}={path}: config or tokenizer cannot be read: {' '.join(str(error).split())}"
        ) from error
    tokenizer.chat_template = settings.get("custom_chat_template") or tokenizer.chat_template
    return RecipeModel(f"{key}={path}", model, tokenizer)


def _at_hub(key: str, name: str) -> bool:
    """Whether the hub can be asked for a model.

    Raises:
        ConfigError: it has none of that name.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi().model_info(name, timeout=10.0)
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"{key}={name}: no such folder, and no model of the hub that can be read with your token"
        ) from error
    except (HTTPError, OSError):
        return False
    return True
