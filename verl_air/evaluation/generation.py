"""Completions from a checkpoint with vLLM's offline engine. vLLM is imported when an engine is made, not before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_air.cpu.environment import VLLM_DEFAULTS, set_defaults
from verl_air.data.schema import PromptMessage as Message
from verl_air.errors import ConfigError, DataError


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. max_tokens: of a response. seed: of everything; see :func:`seed_of`."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """A prompt as token ids, and as text without special tokens, as verl stores it."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Completion:
    """A response, decoded as verl does; truncated: the limit ended it, not the model."""

    text: str
    truncated: bool


def seed_of(seed: int, name: str) -> int:
    """A completion's own seed, from its name.

    So it does not depend on what else is in the batch, and an evaluation that was interrupted ends as one that was not.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


_LOGGING = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}  # stdout is for the table
_ON_CPU: dict[str, Any] = {
    "enforce_eager": True,
    "dtype": "float32",
    "kv_cache_memory_bytes": 1 << 28,
    # Where a prompt is cut in two, vLLM 0.28 turns back the offset of the completion's generator: torch's have none on
    # a CPU, and the engine dies. It warns of this setting; completions are the same with it and without.
    "enable_chunked_prefill": False,
}


def _on_cpu() -> bool:
    if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        return True
    import torch

    return not torch.cuda.is_available()


class Engine:
    """A model in vLLM.

    Args:
        folder: Hugging Face folder.
        max_model_len: longest prompt with response, in tokens; the model's own limit if None.
        engine_kwargs: for ``vllm.LLM``, such as ``tensor_parallel_size``.

    Raises:
        ConfigError: vLLM is not installed.
    """

    def __init__(self, folder: Path, max_model_len: int | None = None, **engine_kwargs: Any) -> None:
        settings: dict[str, Any] = {"trust_remote_code": False, **engine_kwargs}
        if _on_cpu():
            set_defaults()
            for name, value in VLLM_DEFAULTS.items():
                os.environ.setdefault(name, value)
            settings = {**_ON_CPU, **settings}
        # vLLM would fork its engine, which fails on a GPU once anything in this process has touched CUDA.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        for name, value in _LOGGING.items():
            os.environ.setdefault(name, value)
        try:
            from vllm import LLM
        except ImportError as error:
            raise ConfigError(
                f"generating needs vLLM: pip install 'verl-air[gpu]' or 'verl-air[cpu]' ({error})"
            ) from error
        self._llm = LLM(model=str(folder), max_model_len=max_model_len, **settings)
        self._tokenizer = self._llm.get_tokenizer()
        self._longest: int = self._llm.llm_engine.model_config.max_model_len

    def prompt(self, messages: Sequence[Message], where: str, max_tokens: int) -> Prompt:
        """Through the chat template, ready to be answered.

        Raises:
            DataError: it does not fit with ``max_tokens`` of response; ``where`` names it.
        """
        text = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        if len(ids) + max_tokens > self._longest:
            raise DataError(
                f"{where}: a prompt of {len(ids)} tokens and a response of {max_tokens} do not fit into "
                f"{self._longest}; lower --max-tokens or raise --max-model-len"
            )
        return Prompt(tuple(ids), self._tokenizer.decode(ids, skip_special_tokens=True))

    def complete(self, prompts: Sequence[Prompt], names: Sequence[str], sampling: Sampling) -> list[Completion]:
        """One completion a prompt; ``names`` tell completions of one prompt apart and give each its seed."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=seed_of(sampling.seed, name),
                skip_special_tokens=True,
            )
            for name in names
        ]
        inputs = [{"prompt_token_ids": list(prompt.ids)} for prompt in prompts]
        outputs = self._llm.generate(inputs, parameters, use_tqdm=False)
        first = [output.outputs[0] for output in outputs]
        return [Completion(out.text, out.finish_reason == "length") for out in first]
