"""Completions from vLLM's offline engine, each yielded as soon as it is finished.

vLLM is imported when a generator is made, not before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from verl_air.data.schema import PromptMessage
from verl_air.errors import ConfigError, DataError

WAITING = 2048
"""Requests that vLLM is given ahead: more than it runs at a time, so that it never waits for one."""


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are drawn. max_tokens: of a response. seed: of everything; see :func:`seed_of`."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int = 0


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as token ids, and as text without special tokens, as verl stores it."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Completion:
    """A response, decoded as verl does; truncated: ended by the limit, not by the model."""

    text: str
    truncated: bool


@dataclass(frozen=True)
class GenerationRequest:
    """A completion to generate. position: in the file. name: distinguishes completions of one prompt."""

    position: int
    name: str
    prompt: EncodedPrompt


def seed_of(seed: int, name: str) -> int:
    """A completion's own seed, from its name.

    So it does not depend on the rest of the batch, and an evaluation that was interrupted ends as one that was not.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


class VllmGenerator:
    """A model in vLLM's offline engine.

    Args:
        folder: Hugging Face folder.
        max_model_len: longest prompt with response, in tokens; the model's own limit if None.
        on_cpu: use settings with which vLLM runs on a CPU; its environment variables are the caller's.
        engine_kwargs: for ``vllm.LLM``, such as ``tensor_parallel_size``.

    Raises:
        ConfigError: vLLM is not installed.
    """

    ON_CPU: Mapping[str, Any] = {
        "enforce_eager": True,
        "dtype": "float32",
        "kv_cache_memory_bytes": 1 << 28,
        # Where a prompt is cut in two, vLLM 0.28 sets back the offset of the completion's generator, which torch's
        # generators on a CPU do not have, and the engine dies. Completions are the same with and without.
        "enable_chunked_prefill": False,
    }

    def __init__(
        self, folder: Path, max_model_len: int | None = None, *, on_cpu: bool = False, **engine_kwargs: Any
    ) -> None:
        # vLLM would fork its engine, which fails on a GPU once anything in this process has touched CUDA.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        try:
            from vllm.engine.arg_utils import EngineArgs
            from vllm.tokenizers import get_tokenizer
        except ImportError as error:
            raise ConfigError(
                f"generating needs vLLM: pip install 'verl-air[gpu]' or 'verl-air[cpu]' ({error})"
            ) from error
        settings = {"trust_remote_code": False, **(self.ON_CPU if on_cpu else {}), **engine_kwargs}
        self._settings = {"model": str(folder), "max_model_len": max_model_len, **settings}
        try:
            self._longest: int = EngineArgs(**self._settings).create_model_config().max_model_len
        except ValueError as error:
            raise ConfigError(f"{folder}: vLLM cannot run this model ({' '.join(str(error).split())})") from error
        self._tokenizer = get_tokenizer(str(folder))

    def prompt(self, messages: Sequence[PromptMessage], where: str, max_tokens: int) -> EncodedPrompt:
        """Apply the chat template, ready to be answered. The engine is not started for it.

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
        return EncodedPrompt(tuple(ids), self._tokenizer.decode(ids, skip_special_tokens=True))

    @cached_property
    def _engine(self) -> Any:
        from vllm import LLM

        return LLM(**self._settings).llm_engine

    def complete(
        self, requests: Iterator[GenerationRequest], sampling: SamplingSettings
    ) -> Iterator[tuple[int, Completion]]:
        """Yield position and completion as each is finished; the engine always has ``WAITING`` requests, if there are.

        A request's name gives it its seed.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = self._engine
        settings = {**asdict(sampling), "skip_special_tokens": True, "output_kind": RequestOutputKind.FINAL_ONLY}
        left = True
        while left or engine.has_unfinished_requests():
            for request in islice(requests, max(0, WAITING - engine.get_num_unfinished_requests()) if left else 0):
                parameters = SamplingParams(**{**settings, "seed": seed_of(sampling.seed, request.name)})
                prompt = {"type": "token", "prompt_token_ids": list(request.prompt.ids)}
                engine.add_request(str(request.position), prompt, parameters)
            left = engine.get_num_unfinished_requests() >= WAITING
            for output in engine.step():
                if output.finished:
                    first = output.outputs[0]
                    yield int(output.request_id), Completion(first.text, first.finish_reason == "length")
