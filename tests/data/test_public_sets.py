"""The real sets, whole: AdvBench, MoralChoice, GSM8K."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
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


def build_and_check(
    material: BuildInput, out: Path, findings: Sequence[str] = ()
) -> tuple[dict, dict[str, int], dict[str, int]]:
    """The manifest, intents per split, and rows left out by reason; the check finds as many ``findings``, no other."""
    manifest = build(material, BuildOptions(formats=FORMATS), out)
    found = check_files([out / name for name in SPLIT_FILES]).findings
    assert [f"{Path(f.file).stem}: {f.message}"[: len(start)] for f, start in zip_longest(found, findings)] == [
        *findings
    ]
    intents = {split: entry["intents"] for split, entry in manifest["splits"].items()}
    return manifest, intents, {reason: entry["count"] for reason, entry in manifest["excluded"].items()}


def test_advbench(tmp_path: Path) -> None:
    material = read_safety([str(SHARED / "advbench/harmful_behaviors.csv")])
    few, alike = "{}: {} of {} intents are benign (10%, less than 20%)", "train: the length alone separates harmful"
    expected = [few.format("train", 48, 462), alike, few.format("id", 12, 115), few.format("ood", 12, 115)]
    manifest, intents, excluded = build_and_check(material, tmp_path, expected)
    assert len(manifest["warnings"]) == 3
    assert manifest["strata"] == {"benign": 60, "harmful": 517}
    assert (intents, excluded) == ({"train": 462, "id": 115, "ood": 115}, {})


def test_moral_choice(tmp_path: Path) -> None:
    names = [str(SHARED / f"moralchoice/moralchoice_{kind}_ambiguity.csv") for kind in ("low", "high")]
    _, intents, excluded = build_and_check(read_moral(names), tmp_path)
    assert intents == {"train": 538, "id": 134, "ood": 134}
    assert excluded == {
        "not of low ambiguity: no verifiable anchor": 680,
        "the rule labels do not say which action is right": 15,
    }


def test_gsm8k(tmp_path: Path) -> None:
    train, test = (str(SHARED / f"gsm8k/{split}.jsonl") for split in ("train", "test"))
    _, intents, excluded = build_and_check(read_math([train], held_out=[test]), tmp_path)
    assert intents == {"train": 7473, "id": 1317, "ood": 1317}
    assert excluded == {"held-out near-duplicate of a training intent": 2}
