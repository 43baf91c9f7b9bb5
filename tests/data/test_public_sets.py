"""The real sets, whole: AdvBench, MoralChoice, GSM8K."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.support import FORMATS, SHARED, SPLIT_FILES, needs_shared
from verl_air.data.build import BuildOptions, build
from verl_air.data.check import check_files
from verl_air.data.intents import BuildInput
from verl_air.data.math import read_math
from verl_air.data.moral import read_moral
from verl_air.data.safety import read_safety

pytestmark = [needs_shared, pytest.mark.slow]


def build_and_check(material: BuildInput, out: Path) -> dict:
    manifest = build(material, BuildOptions(formats=FORMATS), out)
    report = check_files([out / name for name in SPLIT_FILES])
    assert report.findings == []
    return manifest


def counts(manifest: dict) -> dict[str, int]:
    return {split: entry["intents"] for split, entry in manifest["splits"].items()}


def excluded(manifest: dict) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in manifest["excluded"].items()}


def test_advbench(tmp_path: Path) -> None:
    manifest = build_and_check(read_safety([str(SHARED / "advbench/harmful_behaviors.csv")]), tmp_path)
    assert manifest["strata"] == {"benign": 60, "harmful": 517}
    assert counts(manifest) == {"train": 462, "id": 115, "ood": 115}
    assert excluded(manifest) == {}


def test_moral_choice(tmp_path: Path) -> None:
    names = [str(SHARED / f"moralchoice/moralchoice_{kind}_ambiguity.csv") for kind in ("low", "high")]
    manifest = build_and_check(read_moral(names), tmp_path)
    assert counts(manifest) == {"train": 538, "id": 134, "ood": 134}
    assert excluded(manifest) == {
        "not of low ambiguity: no verifiable anchor": 680,
        "the rule labels do not say which action is right": 15,
    }


def test_gsm8k(tmp_path: Path) -> None:
    names = [str(SHARED / f"gsm8k/{split}.jsonl") for split in ("train", "test")]
    manifest = build_and_check(read_math(names[:1], held_out=names[1:]), tmp_path)
    assert counts(manifest) == {"train": 7473, "id": 1317, "ood": 1317}
    assert excluded(manifest) == {"held-out near-duplicate of a training intent": 2}
