"""Meta-groups to look at, each prompt with what was answered, before and after or run by run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_air.evaluation.jsonl import JsonLines
from verl_air.evaluation.meta_groups import MetaGroup, meta_groups
from verl_air.evaluation.records import Record
from verl_air.evaluation.untrusted import visible

A_KIND = 1
"""Groups of each kind (mixed, all right, all wrong) shown of each domain and split; mixed ones twice as many."""
MAX_GROUPS = 12

_Key = tuple[str, str, str]


@dataclass(frozen=True)
class Answer:
    """One completion. verdict: ``right``, ``wrong`` or ``no verdict``; score: empty if there is none."""

    text: str
    verdict: str
    score: str


@dataclass(frozen=True)
class SamplePrompt:
    """One prompt and what was answered, a cell for each column of the group; None where it is not stored."""

    role: str
    context: str
    text: str
    gold: str
    answers: tuple[Answer | None, ...]


@dataclass(frozen=True)
class SampleGroup:
    """One meta-group. kind: ``mixed``, ``all right`` or ``all wrong`` in the last column."""

    source: str
    intent_id: str
    request: str
    harmful: bool | None
    kind: str
    columns: tuple[str, ...]
    prompts: tuple[SamplePrompt, ...]


def sample_groups(columns: Mapping[str, Path]) -> list[SampleGroup]:
    """Choose groups by the last column and collect their prompts from all. Columns: title -> stored JSONL."""
    if not columns:
        return []
    titles, paths = tuple(columns), list(columns.values())
    chosen = _choose(_records(paths[-1]))
    cells: dict[_Key, dict[tuple[str, str, str], dict[int, tuple[dict[str, Any], Record]]]] = defaultdict(dict)
    for column, path in enumerate(paths):
        for where, row in JsonLines(path):
            key = str(row.get("domain") or ""), str(row.get("split")), str(row.get("intent_id"))
            if key in chosen and not row.get("padding"):
                record = Record.from_mapping(row, where)
                cells[key].setdefault(record.prompt_key, {}).setdefault(column, (row, record))
    return [_group(key, kind, cells[key], titles) for key, kind in chosen.items()]


def _records(path: Path) -> list[Record]:
    return [Record.from_mapping(row, where) for where, row in JsonLines(path) if not row.get("padding")]


def _choose(records: list[Record]) -> dict[_Key, str]:
    """Keys and kinds of the groups to show: the same ones every time, spread over the intents."""
    by_source: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for group in meta_groups(records):
        by_source[group.domain, group.split][_kind(group)].append(group.intent_id)
    chosen: dict[_Key, str] = {}
    for source, kinds in sorted(by_source.items()):
        for kind, number in (("mixed", 2 * A_KIND), ("all right", A_KIND), ("all wrong", A_KIND)):
            intents = sorted(kinds.get(kind, []))
            for intent in intents[:: max(1, len(intents) // number)][:number]:
                chosen[source[0], source[1], intent] = kind
    return dict(list(chosen.items())[:MAX_GROUPS])


def _kind(group: MetaGroup) -> str:
    shares = group.share_right.values()
    return "all right" if min(shares) == 1 else "all wrong" if max(shares) == 0 else "mixed"


def _group(
    key: _Key,
    kind: str,
    prompts: dict[tuple[str, str, str], dict[int, tuple[dict[str, Any], Record]]],
    titles: tuple[str, ...],
) -> SampleGroup:
    domain, split, intent = key
    shown = []
    record = None
    for _, cells in sorted(prompts.items()):
        row, record = next(iter(cells.values()))
        shown.append(
            SamplePrompt(
                role=record.role,
                context=visible(record.context),
                text=visible(str(row.get("input", ""))),
                gold=visible(str(row.get("gts", ""))),
                answers=tuple(_answer(*cells[i]) if i in cells else None for i in range(len(titles))),
            )
        )
    request = str(record.extras.get("request", "")) if record else ""
    return SampleGroup(
        source="/".join(filter(None, (domain, split))),
        intent_id=visible(intent),
        request=visible(request),
        harmful=record.harmful if record else None,
        kind=kind,
        columns=titles,
        prompts=tuple(shown),
    )


def _answer(row: dict[str, Any], record: Record) -> Answer:
    verdict = "no verdict" if not record.judged else "right" if record.right else "wrong"
    score = "" if record.score != record.score else f"{record.score:g}"
    return Answer(visible(str(row.get("output", ""))), verdict, score)
