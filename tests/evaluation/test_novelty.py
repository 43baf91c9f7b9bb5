"""New intents and new framings, told apart by extras or by what training met."""

import json
from pathlib import Path

import pytest
from verl_air.evaluation.meta_groups import meta_groups

from tests.evaluation.support import record
from verl_air.data.schema import make_row, write_rows
from verl_air.errors import DataError
from verl_air.evaluation import Met, breakdown, novelty_of

TRAIN = [("z0", "anchor", "multiple_choice"), ("z0", "open", "story"), ("z1", "open", "polite")]


def met() -> Met:
    return Met.from_records(record(intent_id=z, role=role, context=c, family=c, split="train") for z, role, c in TRAIN)


@pytest.mark.parametrize(
    ("intent", "family", "novelty"),
    [
        ("z0", "story", "nothing new"),
        ("z0", "override", "new framings"),
        ("z9", "polite", "new intents"),
        ("z9", "override", "new intents and framings"),
    ],
)
def test_by_what_training_met(intent: str, family: str, novelty: str, tmp_path: Path) -> None:
    rows = [
        record(intent_id=intent, role="anchor", context="multiple_choice", family="multiple_choice", split="ood"),
        record(intent_id=intent, context=family, family=family, split="ood", index=1),
    ]
    (group,) = meta_groups(rows)
    assert novelty_of(group, met()) == novelty
    file = write_rows(
        tmp_path / "train.parquet",
        [
            make_row(
                prompt="p", ground_truth="A", intent_id=z, role=role, context=c, domain="safety", split="train", index=i
            )
            for i, (z, role, c) in enumerate(TRAIN)
        ],
    )
    assert novelty_of(group, Met.from_files([file])) == novelty


def test_the_same_id_in_another_domain_is_another_intent() -> None:
    (group,) = meta_groups([record(intent_id="z0", domain="moral", family="story")])
    assert novelty_of(group, met()) == "new intents and framings"


@pytest.mark.parametrize(
    ("shift", "novelty"),
    [
        ("none", "nothing new"),
        ("intent", "new intents"),
        ("intent+framing", "new intents and framings"),
        ("", "unknown"),
    ],
)
def test_by_the_rows_own_word(shift: str, novelty: str) -> None:
    (group,) = meta_groups([record(extras=json.dumps({"shift": shift} if shift else {}))])
    assert novelty_of(group) == novelty


def test_a_mixed_split_is_cut_in_two() -> None:
    """OOD rows on intents of training are right, those on new intents wrong: the table must show it."""
    rows = [record(intent_id=f"z{z}", family="override", split="ood", acc=float(z < 2)) for z in range(6)]
    (section,) = breakdown(rows, met())
    assert section.novelty == ("new intents and framings", "new framings")
    assert section.part("novelty", "new framings").prompts.value == 1.0
    assert section.part("novelty", "new framings").intents == 2
    assert section.part("novelty", "new intents and framings").prompts.value == 0.0


def test_no_training_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="no training rows"):
        Met.from_files([])
