"""New rollouts to evaluate: generated with vLLM and scored, or stored ones judged again; both can be resumed."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from verl_air.data.framings import check_style
from verl_air.data.schema import DataRow, ExtraInfo, PromptMessage, read_rows
from verl_air.errors import DataError
from verl_air.evaluation.capability import CapabilityBenchmark
from verl_air.evaluation.checkpoints import step_of
from verl_air.evaluation.records import JsonLines
from verl_air.evaluation.rollout_store import POSITION, RolloutStore, generated_file
from verl_air.evaluation.scoring import Scorer, check_scoring
from verl_air.evaluation.vllm_generator import Completion, EncodedPrompt, GenerationRequest, SamplingSettings
from verl_air.files import fingerprint
from verl_air.rewards import FormatRule, Style

Progress = Callable[[int, int], None]
"""Called with the number of rows done, and of all rows."""


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
    benchmarks: Sequence[CapabilityBenchmark] = (),
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
        benchmarks: questions to answer as well; ``reward_kwargs`` has their routes.
        generator: makes a :class:`~verl_air.evaluation.vllm_generator.VllmGenerator`; not called if all is generated.
        progress: called as rows are scored.

    Raises:
        DataError: a file cannot be used, or ``out`` was started with other settings.
        ConfigError, RewardError: see :class:`~verl_air.evaluation.scoring.Scorer`.
    """
    settings = {
        "made by": "generation",
        "model": fingerprint(model),
        "data": [*map(_file_hash, files), *(f"{b.name}:{b.rule} {b.content.sha256[:16]}" for b in benchmarks)],
        "n": n,
        "sampling": asdict(sampling),
        "rewards": dict(reward_kwargs),
    }
    style = FormatRule.from_mapping(reward_kwargs.get("format") or {}).style
    check_style(files, style)
    named, step = list(_rows(files, benchmarks, style)), step_of(model)
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

    def completed(store: RolloutStore) -> Iterator[tuple[int, dict[str, Any]]]:
        """What an earlier attempt generated, then the rest, each as soon as it is there."""
        yield from store.generated.items()
        if not (left := [position for position in range(total) if position not in store]):
            return
        running = generator()
        rows_left = sorted({position // n for position in left})
        prompts = {k: running.prompt(named[k][1]["prompt"], named[k][0], sampling.max_tokens) for k in rows_left}
        requests = {p: GenerationRequest(p, f"{named[p // n][0]}_{p % n}", prompts[p // n]) for p in left}
        for position, completion in running.complete(iter(requests.values()), sampling):
            row = stored(requests[position], completion)
            store.add_generated(position, row)
            yield position, row

    with RolloutStore(out, settings, total) as store:
        if store.rows < total:
            check_scoring(reward_kwargs, (row for _, row in named))
        _score(completed(store), store, reward_kwargs, progress)
    return Path(out)


def _score(
    rows: Iterable[tuple[int, dict[str, Any]]],
    store: RolloutStore,
    reward_kwargs: Mapping[str, Any],
    progress: Progress,
) -> None:
    progress(store.rows, store.total)
    with Scorer(reward_kwargs, store) as scorer:
        for position, row in rows:
            scorer.submit(position, row)
            progress(store.rows, store.total)
        while not scorer.wait(1.0):
            progress(store.rows, store.total)
    store.finish()
    progress(store.rows, store.total)


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
        pending = ((position, row) for position, row in enumerate(rows) if position not in store)
        _score(pending, store, reward_kwargs, progress)
    return Path(out)


def _rows(
    files: Sequence[str | os.PathLike[str]], benchmarks: Sequence[CapabilityBenchmark], style: Style
) -> Iterator[tuple[str, DataRow]]:
    """Each row with a name of its own."""
    for number, file in enumerate(files):
        for position, row in enumerate(read_rows(file)):
            yield f"{Path(file).stem}{number}-{position}", row
    for benchmark in benchmarks:
        for position, row in enumerate(benchmark.rows(style)):
            yield f"{benchmark.name}-{position}", row


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
