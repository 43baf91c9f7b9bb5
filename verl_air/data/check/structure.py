"""Checks on the short columns: values, ids, completeness of meta-groups, and leaks between training and OOD.

Axes: S rows, Z groups (an intent in a split).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verl_air.data.check.columns import MISSING, Columns
from verl_air.data.check.findings import FileSummary, Finding
from verl_air.data.schema import ROLES, SPLITS


def check_structure(columns: Columns, anchors: int, open_: int) -> Iterator[Finding]:
    """All of them.

    Args:
        columns: of all files that are used together.
        anchors: anchors that a visit to an intent takes.
        open_: open rows that it takes.
    """
    yield from _values(columns)
    yield from _sources(columns)
    yield from _indices(columns)
    yield from _intents(columns)
    yield from _completeness(columns, anchors, open_)
    yield from _families(columns)


def summarise(columns: Columns) -> dict[str, FileSummary]:
    """What stands in each file."""
    summaries = {}
    for path, start, end in zip(columns.paths, columns.offsets[:-1], columns.offsets[1:], strict=True):
        part = {name: codes[start:end] for name, codes in columns.code_S.items()}
        roles = [int(np.count_nonzero(part["role"] == _code(columns, "role", role))) for role in ROLES]
        summaries[str(path)] = FileSummary(
            rows=int(end - start),
            intents=len(np.unique(part["intent_id"])),
            anchors=roles[0],
            open=roles[1],
            splits=_names(columns, "split", part["split"]),
            domains=_names(columns, "domain", part["domain"]),
        )
    return summaries


def _values(columns: Columns) -> Iterator[Finding]:
    prefix = {name: "" if name in ("data_source", "ability") else "extra_info." for name in columns.code_S}
    for name, code_S in columns.code_S.items():
        empty = [code for code, value in enumerate(columns.values[name]) if not value.strip()]
        for row in np.flatnonzero((code_S == MISSING) | np.isin(code_S, empty)):
            yield columns.finding("values", row, prefix[name] + name, "is missing or empty")
    for row in np.flatnonzero(columns.index_S < 0):
        yield columns.finding("values", row, "extra_info.index", "is missing or negative")
    for name, known in (("role", ROLES), ("split", SPLITS)):
        unknown = [code for code, value in enumerate(columns.values[name]) if value not in known and value.strip()]
        for row in np.flatnonzero(np.isin(columns.code_S[name], unknown)):
            value = columns.value(name, row)
            yield columns.finding("values", row, f"extra_info.{name}", f"{value!r} is none of {', '.join(known)}")


def _sources(columns: Columns) -> Iterator[Finding]:
    """``data_source`` is ``domain/split`` and ``ability`` the domain."""
    for rows, (source, ability, domain, split) in _combinations(columns, ("data_source", "ability", "domain", "split")):
        if None in (source, ability, domain, split):
            continue
        if source != f"{domain}/{split}":
            for row in rows:
                yield columns.finding("data_source", row, "data_source", f"{source!r} is not '{domain}/{split}'")
        if ability != domain:
            for row in rows:
                message = f"{ability!r} is not the domain {domain!r}"
                yield columns.finding("data_source", row, "ability", message, "warning")


def _indices(columns: Columns) -> Iterator[Finding]:
    order = np.lexsort((columns.index_S, columns.file_S))
    index_S, file_S = columns.index_S[order], columns.file_S[order]
    twice = (index_S[1:] == index_S[:-1]) & (file_S[1:] == file_S[:-1]) & (index_S[1:] >= 0)
    for row in np.sort(order[1:][twice]):
        yield columns.finding("id twice", row, "extra_info.index", f"{columns.index_S[row]} stands twice in the file")


def _intents(columns: Columns) -> Iterator[Finding]:
    """An intent has one domain, one file a split, and is either trained on or held out."""
    intent_S, split_S = columns.code_S["intent_id"], columns.code_S["split"]
    train = _code(columns, "split", "train")
    trained = np.unique(intent_S[split_S == train])
    held_out_rows = np.flatnonzero(split_S != train)
    leaked = held_out_rows[np.isin(intent_S[held_out_rows], trained[trained != MISSING])]
    for row in leaked[_first_of_each(intent_S[leaked])]:
        message = f"{columns.value('intent_id', row)!r} is also a training intent"
        yield columns.finding("intent leak", row, "extra_info.intent_id", message)
    yield from _split_in_two(columns, "domain", intent_S, "stands under two domains")
    group_S = _pair(intent_S, split_S)
    yield from _split_in_two(columns, "file", group_S, "stands in two files of one split")


def _split_in_two(columns: Columns, by: str, group_S: np.ndarray, what: str) -> Iterator[Finding]:
    by_S = columns.file_S if by == "file" else columns.code_S[by]
    order = np.lexsort((np.arange(len(group_S)), group_S))
    changes = (group_S[order][1:] == group_S[order][:-1]) & (by_S[order][1:] != by_S[order][:-1])
    rows = order[1:][changes & (group_S[order][1:] >= 0)]
    for row in np.sort(rows[_first_of_each(group_S[rows])]):
        intent = columns.value("intent_id", row)
        yield columns.finding("id twice", row, "extra_info.intent_id", f"{intent!r} {what}")


def _completeness(columns: Columns, anchors: int, open_: int) -> Iterator[Finding]:
    group_S = _pair(columns.code_S["intent_id"], columns.code_S["split"])
    groups, first_Z, number_S = np.unique(group_S, return_index=True, return_inverse=True)
    role_S = columns.code_S["role"]
    anchors_Z, open_Z = (
        np.bincount(number_S[role_S == _code(columns, "role", role)], minlength=len(groups)) for role in ROLES
    )
    for z in np.flatnonzero(((anchors_Z < anchors) | (open_Z < open_)) & (groups >= 0)):
        row = int(first_Z[z])
        message = (
            f"{columns.value('intent_id', row)!r} has {anchors_Z[z]} anchor(s) and {open_Z[z]} open row(s) in split "
            f"{columns.value('split', row)!r}; a visit takes {anchors} and {open_}"
        )
        yield columns.finding("incomplete", row, "extra_info.role", message)


def _families(columns: Columns) -> Iterator[Finding]:
    """A framing's family stands in OOD or elsewhere, never both; a framing has one family."""
    is_open = columns.code_S["role"] == _code(columns, "role", "open")
    places: dict[tuple[str, str], dict[bool, np.ndarray]] = {}
    family_of: dict[tuple[str, str], str] = {}
    for rows, (domain, family, context, split) in _combinations(columns, ("domain", "family", "context", "split")):
        rows = rows[is_open[rows]]
        if not len(rows) or not (domain and family and context and family.strip() and context.strip()):
            continue  # nothing to compare; what is missing is reported as such
        known = family_of.setdefault((domain, context), family)
        if known != family:
            message = f"framing {context!r} is of family {family!r} here and {known!r} elsewhere"
            yield columns.finding("family leak", rows[0], "extra_info.family", message)
        side = places.setdefault((domain, family), {})
        side[split == "ood"] = np.append(side.get(split == "ood", rows[:0]), rows)
    for (_, family), side in places.items():
        if len(side) == 2:
            for row in np.sort(side[True]):
                message = f"family {family!r} is met in training or ID too, so it tests nothing new"
                yield columns.finding("family leak", row, "extra_info.family", message)


def _combinations(columns: Columns, names: tuple[str, ...]) -> Iterator[tuple[np.ndarray, tuple[str | None, ...]]]:
    """Each combination of values that occurs, with its rows."""
    key_S = columns.code_S[names[0]].astype(np.int64)
    for name in names[1:]:
        key_S = _pair(key_S, columns.code_S[name])
    _, number_S = np.unique(key_S, return_inverse=True)
    order = np.argsort(number_S, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(number_S[order])) + 1):
        if len(rows):
            yield rows, tuple(columns.value(name, int(rows[0])) for name in names)


def _pair(first_S: np.ndarray, second_S: np.ndarray) -> np.ndarray:
    """One number for two codes; negative where the first is missing."""
    return np.where(first_S < 0, -1, first_S.astype(np.int64) * (int(second_S.max(initial=0)) + 2) + second_S + 1)


def _first_of_each(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_index=True)[1]


def _code(columns: Columns, name: str, value: str) -> int:
    """The code of a value; -2, which no row has, if it does not occur."""
    return columns.values[name].index(value) if value in columns.values[name] else -2


def _names(columns: Columns, name: str, codes: np.ndarray) -> tuple[str, ...]:
    return tuple(sorted(columns.values[name][code] for code in np.unique(codes) if code != MISSING))
