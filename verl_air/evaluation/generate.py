"""New rollouts to evaluate: generated with vLLM and scored, or stored ones judged again; both can be resumed.

vLLM is imported when a generator is made, not before.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from verl_air.data.schema import DataRow, PromptMessage, read_extra_info, read_rows
from verl_air.errors import ConfigError, DataError
from verl_air.evaluation.checkpoints import step_of
from verl_air.evaluation.records import JsonLines
from verl_air.evaluation.rollout_store import RolloutStore
from verl_air.evaluation.scoring import Scorer
from verl_air.files import fingerprint

CHUNK = 256
"""Completions between two writes: what a killed evaluation repeats at most."""

Progress = Callable[[int, int], None]
"""Called with the number of rows done, and of all rows."""


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


class _Generator(Protocol):
    def prompt(self, messages: Sequence[PromptMessage], where: str, max_tokens: int) -> EncodedPrompt: ...

    def complete(
        self, prompts: Sequence[EncodedPrompt], names: Sequence[str], sampling: SamplingSettings
    ) -> list[Completion]: ...


def generate_rollouts(
    model: Path,
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    reward_kwargs: Mapping[str, Any],
    sampling: SamplingSettings,
    *,
    generator: Callable[[], _Generator],
    n: int = 1,
    chunk: int = CHUNK,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Generate ``n`` completions for each row of the data files, score them, and store them as a run stores its own.

    Args:
        model: Hugging Face folder; a resumed file must have been made with the same weights.
        files: parquet files in the project's row schema.
        out: JSONL file; resumed if it is there.
        reward_kwargs: as in a recipe.
        sampling, n: how completions are drawn, and how many per row.
        generator: makes the :class:`VllmGenerator`; not called if nothing is left to do.
        chunk, progress: completions between two writes, and what is called after each.

    Raises:
        DataError: a file cannot be used, or ``out`` was started with other settings.
        ConfigError, RewardError: see :class:`~verl_air.evaluation.scoring.Scorer`.
    """
    settings = {
        "made by": "generation",
        "model": fingerprint(model),
        "data": [_file_hash(file) for file in files],
        "n": n,
        "sampling": asdict(sampling),
        "rewards": dict(reward_kwargs),
    }
    named = ((f"{name}_{k}", row) for name, row in _rows(files) for k in range(n))
    columns = [read_extra_info(file, ("domain", "split", "intent_id")).values() for file in files]
    rows_of = Counter(key for column in columns for key in zip(*column, strict=True))
    intents_of = Counter((domain, split) for domain, split, _ in rows_of)
    total, step = n * rows_of.total(), step_of(model)

    def stored(name: str, row: DataRow, prompt: EncodedPrompt, completion: Completion) -> dict[str, Any]:
        """In the columns of verl's own files and ours; ``score`` is there for its place, and filled in by scoring."""
        info = row["extra_info"]
        return {
            "input": prompt.text,
            "output": completion.text,
            "gts": row["reward_model"]["ground_truth"],
            "score": None,
            "step": step,
            "uid": name,
            **info,
            "group_size": n * rows_of[info["domain"], info["split"], info["intent_id"]],
            "split_intents": intents_of[info["domain"], info["split"]],
            "truncated": completion.truncated,
        }

    with RolloutStore(out, settings) as store, Scorer(reward_kwargs) as scorer:
        progress(store.rows, total)
        left = islice(named, store.rows, None)
        running = generator() if store.rows < total else None
        while running is not None and (work := list(islice(left, chunk))):
            prompts = [running.prompt(row["prompt"], name, sampling.max_tokens) for name, row in work]
            found = running.complete(prompts, [name for name, _ in work], sampling)
            made = zip(work, prompts, found, strict=True)
            store.append(scorer.score([stored(name, row, prompt, text) for (name, row), prompt, text in made]))
            progress(store.rows, total)
    return Path(out)


def rejudge_rollouts(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    reward_kwargs: Mapping[str, Any],
    *,
    chunk: int = CHUNK,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Score stored rollouts again, with other routes or another judge; everything else in a row stays as it is.

    Raises:
        DataError: the file is missing, cut off or not a file of rollouts, or ``out`` was started with other settings.
        ConfigError, RewardError: see :class:`~verl_air.evaluation.scoring.Scorer`.
    """
    if Path(source).resolve() == Path(out).resolve():
        raise DataError(f"{out}: would be judged into itself; name another file with --out")
    lines = JsonLines(source)
    rows = [row for row, _ in lines.rollouts()]
    lines.require_whole()
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("output"), str):
            raise DataError(f"{source}, rollout {number}: no output, so there is nothing to judge")
    settings = {"made by": "re-judging", "rollouts": _file_hash(source), "rewards": dict(reward_kwargs)}
    with RolloutStore(out, settings) as store, Scorer(reward_kwargs) as scorer:
        progress(store.rows, len(rows))
        while work := rows[store.rows : store.rows + chunk]:
            store.append(scorer.score(work))
            progress(store.rows, len(rows))
    return Path(out)


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
            from vllm import LLM
        except ImportError as error:
            raise ConfigError(
                f"generating needs vLLM: pip install 'verl-air[gpu]' or 'verl-air[cpu]' ({error})"
            ) from error
        settings = {"trust_remote_code": False, **(self.ON_CPU if on_cpu else {}), **engine_kwargs}
        self._llm = LLM(model=str(folder), max_model_len=max_model_len, **settings)
        self._tokenizer = self._llm.get_tokenizer()
        self._longest: int = self._llm.llm_engine.model_config.max_model_len

    def prompt(self, messages: Sequence[PromptMessage], where: str, max_tokens: int) -> EncodedPrompt:
        """Apply the chat template, ready to be answered.

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

    def complete(
        self, prompts: Sequence[EncodedPrompt], names: Sequence[str], sampling: SamplingSettings
    ) -> list[Completion]:
        """One completion per prompt; ``names`` distinguish completions of one prompt and give each its seed."""
        from vllm import SamplingParams

        settings = {**asdict(sampling), "skip_special_tokens": True}
        parameters = [SamplingParams(**{**settings, "seed": seed_of(sampling.seed, name)}) for name in names]
        inputs = [{"prompt_token_ids": list(prompt.ids)} for prompt in prompts]
        outputs = self._llm.generate(inputs, parameters, use_tqdm=False)
        first = [output.outputs[0] for output in outputs]
        return [Completion(out.text, out.finish_reason == "length") for out in first]


def _rows(files: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[str, DataRow]]:
    for number, file in enumerate(files):
        for position, row in enumerate(read_rows(file)):
            yield f"{Path(file).stem}{number}-{position}", row


def _file_hash(path: str | os.PathLike[str]) -> str:
    try:
        with Path(path).open("rb") as content:
            digest = hashlib.sha256()
            while block := content.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return f"{Path(path).name} {digest.hexdigest()[:16]}"
