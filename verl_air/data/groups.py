"""Which rows belong to which meta-group: a compact index, built from three columns and checked for completeness.

Ten million rows take 80 MB and a second. Axes: Z intents, S rows (prompts).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_air.data.schema import ROLES, read_extra_columns
from verl_air.errors import DataError

Locate = Callable[[int], str]

_LISTED = 5


@dataclass(frozen=True)
class GroupIndex:
    """Row numbers of every intent's anchors and open rows; intents in order of their first row, rows ascending.

    names: [Z], an arrow array of strings.
    anchor_rows, open_rows: row numbers, int64, intent by intent.
    anchor_offsets, open_offsets: [Z + 1], int64; where each intent's rows begin.
    left_out: names of the intents that had too few rows, if they are not refused.
    """

    names: pa.Array
    anchor_rows: np.ndarray
    anchor_offsets: np.ndarray
    open_rows: np.ndarray
    open_offsets: np.ndarray
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def anchors(self, z: int) -> np.ndarray:
        """Row numbers of the anchors of intent number ``z``."""
        return self.anchor_rows[self.anchor_offsets[z] : self.anchor_offsets[z + 1]]

    def open(self, z: int) -> np.ndarray:
        """Row numbers of the open rows of intent number ``z``."""
        return self.open_rows[self.open_offsets[z] : self.open_offsets[z + 1]]


def read_groups(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], anchors: int, open_: int
) -> GroupIndex:
    """Index the rows of one or several data files; row numbers continue from file to file, in the order given.

    Raises:
        DataError: see :func:`~verl_air.data.schema.open_table` and :func:`build_group_index`; the file is named.
    """
    files = [str(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    if not files:
        raise DataError("no data file given: set data.train_files")
    tables = [read_extra_columns(path, ("domain", "intent_id", "role")) for path in files]
    ends = np.cumsum([table.num_rows for table in tables])

    def locate(row: int) -> str:
        file = int(np.searchsorted(ends, row, side="right"))
        return f"{files[file]}, row {row - int(ends[file]) + tables[file].num_rows}"

    table = pa.concat_tables(tables)
    names = intent_names(table["domain"], table["intent_id"])
    return build_group_index(names, table["role"], anchors=anchors, open_=open_, source=locate)


def intent_names(domain: Any, intent_id: Any) -> Any:
    """``<domain>/<intent_id>`` of each row, two arrow columns to one: an id is unique within its domain only."""
    return pc.binary_join_element_wise(domain, intent_id, "/")


def build_group_index(
    intent_id: Any, role: Any, *, anchors: int, open_: int, source: str | Locate, leave_out_incomplete: bool = False
) -> GroupIndex:
    """Index columns that are already in memory.

    Args:
        intent_id, role: [S] strings; lists, numpy arrays, or arrow (chunked) arrays.
        anchors, open_: rows that a visit to an intent takes; every intent must have as many.
        source: what to call the rows in a message: a name, or a function from a row number to its file and row.
        leave_out_incomplete: leave intents with too few rows out of the index instead of refusing them.

    Raises:
        DataError: no rows; an id is missing; an unknown role; or an intent has too few anchors or open rows.
    """
    locate = source if callable(source) else (lambda row: f"{source}, row {row}")
    names, intent_S = _encode(intent_id)
    roles, role_S = _encode(role)
    if len(intent_S) != len(role_S):
        raise DataError(f"{len(intent_S)} intent ids but {len(role_S)} roles")
    if len(intent_S) == 0:
        raise DataError(f"{source if isinstance(source, str) else 'the data files'}: no rows")
    is_anchor_S, is_open_S = ((role_S >= 0) & (role_S == roles.index(name).as_py()) for name in ROLES)
    for bad_S, why in (
        (intent_S < 0, "extra_info.intent_id is missing"),
        (~(is_anchor_S | is_open_S), f"extra_info.role must be one of {', '.join(ROLES)}"),
    ):
        if bad_S.any():
            raise DataError(f"{locate(int(bad_S.argmax()))}: {why} ({bad_S.sum()} such row(s))")
    anchors_Z, open_Z = (
        np.bincount(intent_S[is_role_S], minlength=len(names)) for is_role_S in (is_anchor_S, is_open_S)
    )
    whole_Z = (anchors_Z >= anchors) & (open_Z >= open_)
    if not (whole_Z.all() or leave_out_incomplete):
        short = np.flatnonzero(~whole_Z)
        listed = ""
        for z in short[:_LISTED].tolist():
            where = locate(int((intent_S == z).argmax()))
            listed += f"  {where}: intent {names[z]}: {anchors_Z[z]} anchor(s), {open_Z[z]} open\n"
        more = f"  and {len(short) - _LISTED} more\n" if len(short) > _LISTED else ""
        raise DataError(
            f"{len(short)} of {len(names)} intents are incomplete: a visit takes {anchors} anchor(s) and {open_} open "
            f"row(s).\n{listed}{more}"
            "Add the missing rows (`verl-air check` lists them all) or ask for fewer rows per intent."
        )
    kept, left_out = (names.filter(pa.array(chosen_Z)) for chosen_Z in (whole_Z, ~whole_Z))

    def of(is_role_S: np.ndarray, count_Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero(is_role_S & whole_Z[intent_S])
        return rows[np.argsort(intent_S[rows], kind="stable")], np.r_[0, np.cumsum(count_Z[whole_Z])]

    arrays = *of(is_anchor_S, anchors_Z), *of(is_open_S, open_Z)
    return GroupIndex(kept, *arrays, left_out=tuple(left_out.to_pylist()))


def _encode(values: Any) -> tuple[pa.Array, np.ndarray]:
    """Distinct values in order of appearance, and each row's number among them (-1: null)."""
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, type=pa.string())
    encoded = pc.dictionary_encode(column)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # what an empty or an already encoded column comes back as
        encoded = encoded.chunk(0)
    return encoded.dictionary, pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
