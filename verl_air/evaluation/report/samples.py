"""Meta-groups to look at, each prompt with what was answered, before and after or run by run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_air.evaluation.metrics import MetaGroup, meta_groups
from verl_air.evaluation.records import JsonLines, PromptKey, ScoredRollout, source_name
from verl_air.evaluation.tables import visible

SHOWN = {"mixed": 2, "all right": 1, "all wrong": 1}
"""Groups of each kind shown for each domain and split."""
MAX_GROUPS = 12

_GroupKey = tuple[str, str, str]


@dataclass(frozen=True)
class SampleAnswer:
    """One completion. verdict: ``right``, ``wrong`` or ``no verdict``; score: empty if there is none."""

    text: str
    verdict: str
    score: str


@dataclass(frozen=True)
class SamplePrompt:
    """One prompt and its answers, one for each column of the group; None where it is not stored."""

    role: str
    context: str
    text: str
    gold: str
    answers: tuple[SampleAnswer | None, ...]


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


_Cell = tuple[dict[str, Any], ScoredRollout]


def sample_groups(columns: Mapping[str, Path]) -> list[SampleGroup]:
    """Choose groups by the last column and collect their prompts from all. Columns: title -> stored JSONL."""
    if not columns:
        return []
    paths = list(columns.values())
    chosen = _choose(meta_groups(rollout for _, rollout in JsonLines(paths[-1]).rollouts()))
    cells: dict[_GroupKey, dict[PromptKey, dict[int, _Cell]]] = defaultdict(lambda: defaultdict(dict))
    for column, path in enumerate(paths):
        for row, rollout in JsonLines(path).rollouts():
            key = rollout.domain, rollout.split, rollout.intent_id
            if key in chosen:
                cells[key][rollout.prompt_key].setdefault(column, (row, rollout))
    return [_group(key, kind, cells[key], tuple(columns)) for key, kind in chosen.items()]


def _choose(groups: list[MetaGroup]) -> dict[_GroupKey, str]:
    """Keys and kinds of the groups to show: the same ones every time, spread over the intents."""
    by_kind: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        kind = "all right" if group.all_right == 1 else "all wrong" if group.all_wrong == 1 else "mixed"
        by_kind[group.domain, group.split][kind].append(group.intent_id)
    chosen: dict[_GroupKey, str] = {}
    for source, kinds in sorted(by_kind.items()):
        for kind, number in SHOWN.items():
            intents = sorted(kinds[kind])
            for intent in intents[:: max(1, len(intents) // number)][:number]:
                chosen[(*source, intent)] = kind
    return dict(list(chosen.items())[:MAX_GROUPS])


def _group(
    key: _GroupKey, kind: str, prompts: dict[PromptKey, dict[int, _Cell]], columns: tuple[str, ...]
) -> SampleGroup:
    shown = [_prompt(cells, len(columns)) for _, cells in sorted(prompts.items())]
    first = next(rollout for cells in prompts.values() for _, rollout in cells.values())
    request = visible(str(first.extras.get("request", "")))
    return SampleGroup(source_name(*key[:2]), visible(key[2]), request, first.harmful, kind, columns, tuple(shown))


def _prompt(cells: dict[int, _Cell], columns: int) -> SamplePrompt:
    row, rollout = next(iter(cells.values()))
    return SamplePrompt(
        role=rollout.role,
        context=visible(rollout.context),
        text=visible(str(row.get("input", ""))),
        gold=visible(str(row.get("gts", ""))),
        answers=tuple(_answer(*cells[i]) if i in cells else None for i in range(columns)),
    )


def _answer(row: dict[str, Any], rollout: ScoredRollout) -> SampleAnswer:
    score = "" if rollout.score != rollout.score else f"{rollout.score:g}"
    return SampleAnswer(visible(str(row.get("output", ""))), rollout.verdict, score)
