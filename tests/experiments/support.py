"""Runs that take no time: a launcher that leaves what ``main_ppo`` would leave."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from tests.evaluation.support import rows_of, write_jsonl

Skill = Callable[[Path, Sequence[str]], float]


class FakeMainPpo:
    """Writes metrics, validations and a record, whose accuracy rises to ``skill``; fails ``crashes`` times first."""

    def __init__(self, skill: Skill = lambda folder, settings: 0.7, crashes: int = 0) -> None:
        self.skill = skill
        self.crashes = crashes
        self.launched: list[tuple[Path, tuple[str, ...]]] = []

    def __call__(self, folder: Path, recipe: str, settings: Sequence[str]) -> int:
        self.launched.append((folder, tuple(settings)))
        chosen = dict(item.lstrip("+").split("=", 1) for item in settings)
        rng = random.Random(f"{chosen['data.seed']}-{sorted(chosen)}")
        (folder / "train.log").write_text("all is well\n")
        if self.crashes:
            self.crashes -= 1
            write_jsonl(folder / "validation" / "1.jsonl", [{"half": "a row"}])
            return 1
        lines = []
        for step in (0, 1, 2):
            skill = 0.3 + (self.skill(folder, settings) - 0.3) * step / 2
            rows = [
                row
                for split in ("id", "ood")
                for row in rows_of(rng, domain="playground", split=split, intents=12, skill=skill)
            ]
            write_jsonl(folder / "validation" / f"{step}.jsonl", rows)
            lines.append({"step": step, "data": {"air/open_reward/mean": skill, "timing_s/step": 1.0}})
        write_jsonl(folder / "metrics.jsonl", lines)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "config.yaml").write_text(
            yaml.safe_dump({"data": {"seed": int(chosen["data.seed"])}})
        )
        record = {"git": {"commit": "abc123", "modified": False}, "versions": {"verl": "0.9.1"}}
        (folder / "checkpoints" / "run.json").write_text(json.dumps(record))
        return 0
