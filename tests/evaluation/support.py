"""Rows and run folders as a run stores them, made from a seed."""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from verl_air.evaluation import ScoredRollout

FRAMINGS = {"train": ("polite", "story"), "id": ("polite", "story"), "ood": ("override", "urgent")}


def row(**columns: Any) -> dict[str, Any]:
    """A stored line; what is not given is harmless."""
    return {
        "input": "a prompt",
        "output": "<think> fine </think> <answer> A </answer>",
        "gts": "A",
        "score": 2.5 if columns.get("acc") else -1.0,
        "step": 0,
        "intent_id": "z0",
        "role": "open",
        "context": "polite",
        "family": "polite",
        "domain": "safety",
        "split": "id",
        "extras": "{}",
        "acc": 1.0,
        **columns,
    }


def record(**columns: Any) -> ScoredRollout:
    return ScoredRollout.from_mapping(row(**columns), "test row")


def rows_of(
    rng: random.Random, *, domain: str, split: str, intents: int, skill: float, completions: int = 1
) -> list[dict[str, Any]]:
    """Whole meta-groups: an anchor and the split's framings; half of the intents are harmful."""
    rows = []
    for z in range(intents):
        extras = json.dumps({"harmful": z % 2 == 0, "request": f"do thing {z}"})
        knows = min(1.0, max(0.0, skill + rng.uniform(-0.3, 0.3)))
        for s, context in enumerate(("multiple_choice", *FRAMINGS[split])):
            for _ in range(completions):
                right = float(rng.random() < (min(1.0, knows + 0.2) if s == 0 else knows))
                rows.append(
                    row(
                        input=f"{context}: do thing {z}",
                        acc=right,
                        score=2.5 if right else 0.25,
                        intent_id=f"{domain}-{'t' if split == 'train' else 'h'}{z}",
                        role="anchor" if s == 0 else "open",
                        context=context,
                        family=context,
                        domain=domain,
                        split=split,
                        index=10 * z + s,
                        extras=extras,
                        group_size=3 * completions,
                        split_intents=None if split == "train" else intents,
                    )
                )
    return rows


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")
    return path


def write_run(
    folder: Path,
    *,
    seed: int = 0,
    steps: int = 20,
    domains: Sequence[str] = ("safety",),
    intents: int = 16,
    every: int = 10,
    metrics: bool = True,
    coef: float = 0.03,
) -> Path:
    """A run that learns: metrics, rollouts, validations, recipe and versions."""
    rng = random.Random(seed)
    lines = []
    for step in range(steps + 1):
        skill = 0.35 + 0.5 * step / max(1, steps)
        data: dict[str, Any] = {}
        if step:
            batch = [
                r for d in domains for r in rows_of(rng, domain=d, split="train", intents=4, skill=skill, completions=3)
            ]
            write_jsonl(folder / "rollouts" / f"{step}.jsonl", batch)
            anchor, open_ = 2.5 * min(1, skill + 0.2) + rng.gauss(0, 0.1), 2.5 * skill + rng.gauss(0, 0.1)
            data = {
                "air/anchor_reward/mean": anchor,
                "air/open_reward/mean": open_,
                "air/gap/mean": anchor - open_,
                "air/gap_se": 0.1,
                "air/gap/anchors_worse": 0.0,
                "air/zero_std_rate": 0.5,
                "air/no_answer_rate": 0.1,
                "air/truncation_rate": 0.0,
                "air/judge/abstain_rate": 0.0,
                "air/groups/complete": 4.0,
                "air/groups/dropped": 0.0,
                "air/anchor_acc": 0.9,
                "air/open_acc": skill,
                "actor/loss": 0.1,
                "actor/grad_norm": 1.0,
            }
        if step % every == 0:
            held = [
                r
                for d in domains
                for split in ("id", "ood")
                for r in rows_of(rng, domain=d, split=split, intents=intents, skill=skill - 0.1 * (split == "ood"))
            ]
            write_jsonl(folder / "validation" / f"{step}.jsonl", held)
            data["val-core/safety/id/group_acc"] = skill
        lines.append({"step": step, "data": data})
    if metrics:
        write_jsonl(folder / "metrics.jsonl", lines)
    recipe = {
        "air": {"regularizer": "air", "coef": coef, "anchors_per_intent": 1, "open_per_intent": 2},
        "data": {"seed": seed},
        "trainer": {"total_training_steps": steps},
        "judge": {"api_key": "sk-very-secret"},
    }
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints" / "config.yaml").write_text(yaml.safe_dump(recipe))
    run = {"python": "3.11.7", "versions": {"verl": "0.9.1"}, "git": {"commit": "abc123", "modified": True}}
    (folder / "checkpoints" / "run.json").write_text(json.dumps(run))
    return folder
