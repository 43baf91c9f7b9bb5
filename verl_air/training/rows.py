"""What a prompt is called in verl's queues, and which row of the data it is.

verl keys a trajectory as ``{uid}_{session}_{index}`` and splits on "_", so a prompt's uid must not hold one. Ours are
``{group}-{position}``: sixteen random bytes in hex for the meta-group, and the prompt's position in it.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_air.data.schema import open_table, read_extra_columns
from verl_air.errors import DataError

SIZES = ("group_size", "split_intents")
"""Stored with each rollout: completions that its meta-group should have in this step's file, and intents that its
data source has in the validation data (None in training), so that a file alone tells what is missing from it."""

COLUMNS = ("index", "intent_id", "role", "context", "family", "domain", "split", "extras", *SIZES)
"""Of ``extra_info`` (``verl_air.data.schema.ExtraInfo``), and ``SIZES``."""

GROUP_KEY = ("domain", "split", "intent_id")
"""Of ``extra_info``: what distinguishes the meta-groups of validation."""


def new_group_uids(group_size: int) -> list[str]:
    """Uids for the prompts of one fresh meta-group, in order."""
    group = uuid.uuid4().hex
    return [f"{group}-{position}" for position in range(group_size)]


def group_of(uid: str) -> str:
    """The meta-group of a prompt."""
    return uid.rpartition("-")[0]


def uid_of(key: str) -> str:
    """The prompt of a trajectory key."""
    return key.split("_", 1)[0]


def session_of(key: str) -> str:
    """The completion a trajectory key belongs to: an agent loop may output several trajectories per session."""
    return key.rsplit("_", 1)[0]


def as_dict(item: Any) -> dict[str, Any]:
    """One item of a non-tensor column, which may come wrapped; empty if it is no mapping."""
    item = getattr(item, "data", item)
    return dict(item) if isinstance(item, Mapping) else {}


def with_group_sizes(
    keys: Sequence[str], infos: Sequence[Mapping[str, Any]], padding_N: Iterable[bool], visit: int
) -> list[dict[str, Any]]:
    """The rows of a training step with ``group_size``: the completions of all its visits to their intent.

    Stored rollouts are grouped by intent, and a step may visit one twice. visit: completions of one visit.
    """
    visits: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    names = [tuple(info.get(name) for name in GROUP_KEY) for info in infos]
    for key, name, padding in zip(keys, names, padding_N, strict=True):
        if not padding:
            visits[name].add(group_of(uid_of(key)))
    return [{**info, "group_size": visit * len(visits[name])} for info, name in zip(infos, names, strict=True)]


def check_identity(info: Mapping[str, Any], where: str) -> None:
    """Whether a row's ``extra_info`` says where it belongs.

    Raises:
        DataError: it lacks ``role`` or ``intent_id``.
    """
    if "role" not in info or "intent_id" not in info:
        raise DataError(f"{where}: extra_info lacks role or intent_id; it has {', '.join(sorted(info))}")


@dataclass(frozen=True)
class ValidationIntents:
    """What the validation files hold, whatever verl filters out, samples or fails to generate.

    rows: prompts by ``GROUP_KEY``.
    sources: ``data_source`` by ``GROUP_KEY``.
    intents: number of intents by ``data_source``.
    """

    rows: Mapping[tuple[Any, ...], int]
    sources: Mapping[tuple[Any, ...], str]
    intents: Mapping[str, int]

    @classmethod
    def read(cls, files: Iterable[str | Path]) -> ValidationIntents:
        """Read local data files.

        Raises:
            DataError: a file cannot be read, or its ``extra_info`` lacks a field of ``GROUP_KEY``.
        """
        rows: Counter[tuple[Any, ...]] = Counter()
        sources: dict[tuple[Any, ...], str] = {}
        for file in files:
            keys = zip(*read_extra_columns(file, GROUP_KEY).to_pydict().values(), strict=True)
            source_S = open_table(file).read(columns=["data_source"])["data_source"].to_pylist()
            for key, source in zip(keys, source_S, strict=True):
                rows[key] += 1
                sources[key] = source
        return cls(rows, sources, Counter(sources.values()))

    def sizes(self, info: Mapping[str, Any], completions: int) -> dict[str, int]:
        """``SIZES`` of a row with this ``extra_info``; nothing for a row that the files do not hold."""
        key = tuple(info.get(name) for name in GROUP_KEY)
        if key not in self.rows:
            return {}
        return dict(zip(SIZES, (self.rows[key] * completions, self.intents[self.sources[key]]), strict=True))


class RowIdentities:
    """``extra_info`` by prompt uid, and notes by trajectory key, for the batches since the last :meth:`clear`.

    With them metrics can be grouped, and stored rollouts name their intent, role and framing.
    """

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._notes: dict[str, dict[str, Any]] = {}

    def add(self, keys: Sequence[str], extra_info: Sequence[Any]) -> None:
        """Remember rows by their trajectory keys."""
        self._rows.update({uid_of(key): as_dict(info) for key, info in zip(keys, extra_info, strict=True)})

    def note(self, keys: Sequence[str], **columns: Iterable[Any]) -> None:
        """Remember something about each trajectory: its rewards, its weight."""
        for name, values in columns.items():
            for key, value in zip(keys, values, strict=True):
                self._notes.setdefault(key, {})[name] = value

    def of(self, uids: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of prompts, empty where unknown."""
        return [self._rows.get(uid, {}) for uid in uids]

    def columns(self, keys: Sequence[str]) -> dict[str, list[Any]]:
        """One column per field, for trajectory keys."""
        rows = self.of([uid_of(key) for key in keys])
        notes = [self._notes.get(key, {}) for key in keys]
        return {name: [row.get(name) for row in rows] for name in COLUMNS} | {
            name: [note.get(name) for note in notes] for name in dict.fromkeys(name for note in notes for name in note)
        }

    def clear(self) -> None:
        """Forget all of them."""
        self._rows.clear()
        self._notes.clear()
