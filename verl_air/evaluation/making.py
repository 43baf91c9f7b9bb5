"""New rollouts to evaluate: generated from a checkpoint and scored, or stored ones judged again; both resumable."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from verl_air.data.schema import DataRow as Row
from verl_air.data.schema import read_rows
from verl_air.errors import DataError
from verl_air.evaluation.checkpoints import step_of
from verl_air.evaluation.generation import Completion, Prompt, Sampling
from verl_air.evaluation.jsonl import open_jsonl
from verl_air.evaluation.records import Record
from verl_air.evaluation.rollout_store import RolloutStore
from verl_air.evaluation.scoring import Scorer

CHUNK = 256
"""Completions between two writes: what a killed evaluation does again at most."""

Progress = Callable[[int, int], None]
"""Told the rows that are done, of how many."""

_SAMPLES = 1 << 16  # bytes read at each of some places of a weight file


class _Engine(Protocol):
    def prompt(self, messages: Any, where: str, max_tokens: int) -> Prompt: ...

    def complete(self, prompts: Sequence[Prompt], names: Sequence[str], sampling: Sampling) -> list[Completion]: ...


def generate_rollouts(
    model: Path,
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    reward_kwargs: Mapping[str, Any],
    sampling: Sampling,
    *,
    engine: Callable[[], _Engine],
    n: int = 1,
    chunk: int = CHUNK,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Generate ``n`` completions for each row of the data files, score them, and store them as a run stores its own.

    Args:
        model: Hugging Face folder; its contents are part of what a resumed file must agree with.
        files: parquet files in the project's row schema.
        out: JSONL file; gone on with if it is there.
        reward_kwargs: as in a recipe.
        sampling: how completions are drawn.
        engine: makes the engine; not called if nothing is left to do.
        n: completions a row.
        chunk: completions between two writes.
        progress: told after each write.

    Raises:
        DataError: a file cannot be used, or ``out`` was begun with other settings.
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
    total = n * sum(1 for _ in _rows(files))
    with RolloutStore(out, settings) as store, Scorer(reward_kwargs) as scorer:
        progress(store.rows, total)
        left = islice(_named(files, n), store.rows, None)
        running = engine() if store.rows < total else None
        while running is not None and (work := list(islice(left, chunk))):
            prompts = [running.prompt(row["prompt"], name, sampling.max_tokens) for name, row in work]
            found = running.complete(prompts, [name for name, _ in work], sampling)
            made = [
                _stored(name, row, prompt, completion, step_of(model))
                for (name, row), prompt, completion in zip(work, prompts, found, strict=True)
            ]
            scores = scorer.score(made)
            store.append(_scored(row, score) for row, score in zip(made, scores, strict=True))
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
    """Score stored rollouts again, with other routes or another judge; everything else of a row stays as it is.

    Raises:
        DataError: the file is missing, cut off or no file of rollouts, or ``out`` was begun with other settings.
        ConfigError, RewardError: see :class:`~verl_air.evaluation.scoring.Scorer`.
    """
    if Path(source).resolve() == Path(out).resolve():
        raise DataError(f"{out}: would be judged into itself; name another file with --out")
    lines = open_jsonl(source)
    rows = []
    for where, row in lines:
        Record.from_mapping(row, where)
        if not isinstance(row.get("output"), str):
            raise DataError(f"{where}: no output, so there is nothing to judge")
        if not row.get("padding"):
            rows.append(row)
    lines.require_whole()
    settings = {"made by": "re-judging", "rollouts": _file_hash(source), "rewards": dict(reward_kwargs)}
    with RolloutStore(out, settings) as store, Scorer(reward_kwargs) as scorer:
        progress(store.rows, len(rows))
        while work := rows[store.rows : store.rows + chunk]:
            scores = scorer.score(work)
            store.append(_scored(row, score) for row, score in zip(work, scores, strict=True))
            progress(store.rows, len(rows))
    return Path(out)


def fingerprint(model: Path) -> str:
    """A hash of a model's folder that tells trained weights apart without reading all of them.

    Of each file the size and its contents at the ends and at 14 places between; small files whole.
    """
    digest = hashlib.sha256()
    for file in sorted(path for path in model.iterdir() if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            if size <= 16 * _SAMPLES:
                digest.update(content.read())
                continue
            for place in range(16):
                content.seek((size - _SAMPLES) * place // 15)
                digest.update(content.read(_SAMPLES))
    return digest.hexdigest()[:16]


def _rows(files: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[str, Row]]:
    for number, file in enumerate(files):
        for position, row in enumerate(read_rows(file)):
            yield f"{Path(file).stem}{number}-{position}", row


def _named(files: Sequence[str | os.PathLike[str]], n: int) -> Iterator[tuple[str, Row]]:
    """All completions that are to be made, in order, each with a name of its own."""
    return ((f"{name}_{k}", row) for name, row in _rows(files) for k in range(n))


def _stored(name: str, row: Row, prompt: Prompt, completion: Completion, step: int) -> dict[str, Any]:
    """A row in the columns of verl's own files and ours, without scores."""
    return {
        "input": prompt.text,
        "output": completion.text,
        "gts": row["reward_model"]["ground_truth"],
        "score": None,
        "step": step,
        "uid": name,
        **row["extra_info"],
        "truncated": completion.truncated,
    }


def _scored(row: Mapping[str, Any], score: Mapping[str, float]) -> dict[str, Any]:
    return {**row, **score}


def _file_hash(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
        return f"{Path(path).name} {digest.hexdigest()[:16]}"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
