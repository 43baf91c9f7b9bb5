"""Meta-groups to read, each prompt with what was answered, before and after or run by run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_air.evaluation.metrics import MetaGroup, meta_groups
from verl_air.evaluation.records import JsonLines, PromptKey, ScoredRollout, source_name

SHOWN = {"mixed": 2, "all right": 1, "all wrong": 1, "incomplete": 1}
"""Groups of each kind shown for each domain and split."""
MAX_GROUPS = 12


@dataclass(frozen=True)
class SampleCell:
    """A stored row, and the rollout in it."""

    row: dict[str, Any]
    rollout: ScoredRollout


@dataclass(frozen=True)
class SampleGroup:
    """One meta-group.

    kind: ``mixed``, ``all right``, ``all wrong`` or ``incomplete`` in the last column.
    prompts: the cells of each prompt, one per column; None where it is not stored.
    """

    source: str
    intent_id: str
    kind: str
    columns: tuple[str, ...]
    prompts: list[list[SampleCell | None]]


def sample_groups(columns: Mapping[str, Path]) -> list[SampleGroup]:
    """Choose groups by the last column and collect their prompts from all. Columns: title -> stored JSONL."""
    if not columns:
        return []
    paths = list(columns.values())
    chosen = _choose(meta_groups(rollout for _, rollout in JsonLines(paths[-1]).rollouts()))
    cells: dict[tuple[str, str, str], dict[PromptKey, list[SampleCell | None]]] = {key: {} for key in chosen}
    for column, path in enumerate(paths):
        for row, rollout in JsonLines(path).rollouts():
            if (key := (rollout.domain, rollout.split, rollout.intent_id)) in chosen:
                of_prompt = cells[key].setdefault(rollout.prompt_key, [None] * len(paths))
                of_prompt[column] = of_prompt[column] or SampleCell(row, rollout)
    groups = []
    for key, kind in chosen.items():
        prompts = [cells[key][name] for name in sorted(cells[key])]
        groups.append(SampleGroup(source_name(*key[:2]), key[2], kind, tuple(columns), prompts))
    return groups


def _choose(groups: list[MetaGroup]) -> dict[tuple[str, str, str], str]:
    """Keys and kinds of the groups to show: the same ones every time, spread over the intents."""
    by_kind: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        values = {"incomplete": group.incomplete, "all right": group.all_right == 1, "all wrong": group.all_wrong == 1}
        kind = next((kind for kind, found in values.items() if found), "mixed")
        by_kind[group.domain, group.split][kind].append(group.intent_id)
    chosen = {}
    for source, kinds in sorted(by_kind.items()):
        for kind, number in SHOWN.items():
            intents = sorted(kinds[kind])
            for intent in intents[:: max(1, len(intents) // number)][:number]:
                chosen[(*source, intent)] = kind
    return dict(list(chosen.items())[:MAX_GROUPS])
