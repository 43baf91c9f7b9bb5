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

from verl_air.data.schema import DataRow, ExtraInfo, PromptMessage, read_rows
from verl_air.errors import ConfigError, DataError
from verl_air.evaluation.checkpoints import fingerprint, step_of
from verl_air.evaluation.records import JsonLines
from verl_air.evaluation.rollout_store import POSITION, RolloutStore, generated_file
from verl_air.evaluation.scoring import Scorer, check_scoring

WAITING = 2048
"""Requests that vLLM is given ahead: more than it runs at a time, so that it never waits for one."""

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


@dataclass(frozen=True)
class GenerationRequest:
    """A completion to generate. position: in the file. name: distinguishes completions of one prompt."""

    position: int
    name: str
    prompt: EncodedPrompt


class _Generator(Protocol):
    def prompt(self, messages: Sequence[PromptMessage], where: str, max_tokens: int) -> EncodedPrompt: ...

    def complete(
        self, requests: Iterator[GenerationRequest], sampling: SamplingSettings
    ) -> Iterator[tuple[int, Completion]]: ...


def generate_rollouts(
    model: Path,
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    reward_kwargs: Mapping[str, Any],
    sampling: SamplingSettings,
    *,
    generator: Callable[[], _Generator],
    n: int = 1,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Generate ``n`` completions for each row of the data files, score them, and store them as a run stores its own.

    Routes, judges and the lengths of all prompts are checked before anything is generated. Rows are scored while others
    are generated; see :class:`~verl_air.evaluation.rollout_store.RolloutStore` for what is stored when.

    Args:
        model: Hugging Face folder; a resumed file must have been made with the same weights.
        files: parquet files in the project's row schema.
        out: JSONL file; resumed if it is there.
        reward_kwargs: as in a recipe.
        sampling, n: how completions are drawn, and how many per row.
        generator: makes the :class:`VllmGenerator`; not called if nothing is left to generate.
        progress: called as rows are scored.

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
    named, step = list(_rows(files)), step_of(model)
    places = [_place(row["extra_info"]) for _, row in named]
    rows_of = Counter(places)
    intents_of = Counter((domain, split) for domain, split, _ in rows_of)
    total = n * len(named)

    def stored(request: GenerationRequest, completion: Completion) -> dict[str, Any]:
        """In the columns of verl's own files and ours; ``score`` is there for its place, and filled in by scoring."""
        _, row = named[request.position // n]
        place = places[request.position // n]
        return {
            "input": request.prompt.text,
            "output": completion.text,
            "gts": row["reward_model"]["ground_truth"],
            "score": None,
            "acc": None,
            "step": step,
            "uid": request.name,
            **row["extra_info"],
            "group_size": n * rows_of[place],
            "split_intents": intents_of[place[:2]],
            "truncated": completion.truncated,
        }

    with RolloutStore(out, settings, total) as store:
        progress(store.rows, total)
        if store.rows < total:
            check_scoring(reward_kwargs, (row for _, row in named))
        left = [position for position in range(total) if position not in store]
        with Scorer(reward_kwargs, store) as scorer:
            for position, row in store.generated.items():
                scorer.submit(position, row)
            if left:
                running = generator()
                places_left = sorted({position // n for position in left})
                prompts = {
                    k: running.prompt(named[k][1]["prompt"], named[k][0], sampling.max_tokens) for k in places_left
                }
                requests = {p: GenerationRequest(p, f"{named[p // n][0]}_{p % n}", prompts[p // n]) for p in left}
                for position, completion in running.complete(iter(requests.values()), sampling):
                    row = stored(requests[position], completion)
                    store.add_generated(position, row)
                    scorer.submit(position, row)
                    progress(store.rows, total)
            while not scorer.wait(1.0):
                progress(store.rows, total)
        store.finish()
        progress(store.rows, total)
    return Path(out)


def rejudge_rollouts(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    reward_kwargs: Mapping[str, Any],
    *,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Score stored rollouts again, with other routes or another judge; everything else in a row stays as it is.

    Of a file that :func:`generate_rollouts` did not finish, all that was generated is scored.

    Raises:
        DataError: the file is missing, cut off or not a file of rollouts, or ``out`` was started with other settings.
        ConfigError, RewardError: see :class:`~verl_air.evaluation.scoring.Scorer`.
    """
    if Path(source).resolve() == Path(out).resolve():
        raise DataError(f"{out}: would be judged into itself; name another file with --out")
    unfinished = generated_file(source)
    lines = JsonLines(unfinished if unfinished.is_file() else source)
    rows = [row for row, _ in lines.rollouts()]
    lines.require_whole()
    if unfinished.is_file():
        rows.sort(key=lambda row: row.pop(POSITION))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("output"), str):
            raise DataError(f"{source}, rollout {number}: no output, so there is nothing to judge")
    settings = {"made by": "re-judging", "rollouts": _file_hash(lines.path), "rewards": dict(reward_kwargs)}
    with RolloutStore(out, settings, len(rows)) as store:
        progress(store.rows, len(rows))
        with Scorer(reward_kwargs, store) as scorer:
            for position, row in enumerate(rows):
                if position not in store:
                    scorer.submit(position, row)
            while not scorer.wait(1.0):
                progress(store.rows, len(rows))
        store.finish()
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

    def complete(
        self, requests: Iterator[GenerationRequest], sampling: SamplingSettings
    ) -> Iterator[tuple[int, Completion]]:
        """Yield position and completion as each is finished; the engine always has ``WAITING`` requests, if there are.

        A request's name gives it its seed.
        """
        from vllm import LLM, SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = LLM(**self._settings).llm_engine
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


def _rows(files: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[str, DataRow]]:
    for number, file in enumerate(files):
        for position, row in enumerate(read_rows(file)):
            yield f"{Path(file).stem}{number}-{position}", row


def _place(info: ExtraInfo) -> tuple[str, str, str]:
    return info["domain"], info["split"], info["intent_id"]


def _file_hash(path: str | os.PathLike[str]) -> str:
    try:
        with Path(path).open("rb") as content:
            digest = hashlib.sha256()
            while block := content.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return f"{Path(path).name} {digest.hexdigest()[:16]}"
