"""Which row of the data a rollout belongs to, so that metrics can be grouped and stored rollouts can be read later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import transfer_queue as tq

from verl_air.training.group_ids import uid_of

COLUMNS = ("index", "intent_id", "role", "context", "family", "domain", "split", "extras")
"""Of ``extra_info`` (``verl_air.data.schema.ExtraInfo``)."""


class RowIdentities:
    """``extra_info`` by prompt uid, and notes by trajectory key, for the batches since the last :meth:`clear`."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._notes: dict[str, dict[str, Any]] = {}

    def read(self, batch: Any) -> None:
        """Fetch and remember a batch that is still in TransferQueue."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_info"])
        self.add(batch.keys, list(data["extra_info"]))

    def add(self, keys: Sequence[str], extra_info: Sequence[Any]) -> None:
        """Remember rows by their trajectory keys."""
        for key, info in zip(keys, extra_info, strict=True):
            info = getattr(info, "data", info)
            self._rows[uid_of(key)] = dict(info) if isinstance(info, Mapping) else {}

    def note(self, keys: Sequence[str], **columns: Iterable[Any]) -> None:
        """Remember something about each trajectory: its rewards, its weight."""
        for name, values in columns.items():
            for key, value in zip(keys, values, strict=True):
                self._notes.setdefault(key, {})[name] = value

    def of(self, uids: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of prompts, empty where unknown."""
        return [self._rows.get(uid, {}) for uid in uids]

    def columns(self, keys: Sequence[str]) -> dict[str, list[Any]]:
        """One column a field, for trajectory keys."""
        rows = self.of([uid_of(key) for key in keys])
        notes = [self._notes.get(key, {}) for key in keys]
        noted = dict.fromkeys(name for note in notes for name in note)
        return {
            **{name: [row.get(name) for row in rows] for name in COLUMNS},
            **{name: [note.get(name) for note in notes] for name in noted},
        }

    def clear(self) -> None:
        """Forget all of them."""
        self._rows.clear()
        self._notes.clear()
