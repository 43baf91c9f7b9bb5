import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from verl_air.data.schema import DataRow, Split, read_rows
from verl_air.playground.dataset import build_rows, write_dataset
from verl_air.playground.framings import FRAMINGS, Setting
from verl_air.playground.language import UNKNOWN, build_tokenizer

RowsBySplit = dict[Split, list[DataRow]]
LONGEST_PROMPT = {"plain": 21, "hidden": 32}  # tokens, chat template included; the recipe allows 64
ID_FRAMINGS, OOD_FRAMINGS = ([f for f in FRAMINGS["plain"] if f.side == side] for side in ("id", "ood"))


@pytest.fixture(scope="module")
def rows() -> RowsBySplit:
    return build_rows(0)


def intents_of(rows: list[DataRow]) -> set[str]:
    return {row["extra_info"]["intent_id"] for row in rows}


def test_the_same_seed_gives_the_same_rows_and_another_does_not(rows: RowsBySplit) -> None:
    assert rows == build_rows(0)
    assert rows != build_rows(1)
    assert {split: len(found) for split, found in rows.items()} == {"train": 120 * 6, "id": 48 * 5, "ood": 48 * 5}


def test_held_out_intents_are_those_of_both_evaluation_files_and_never_trained_on(rows: RowsBySplit) -> None:
    assert intents_of(rows["id"]) == intents_of(rows["ood"])
    assert not intents_of(rows["train"]) & intents_of(rows["id"])


def test_ood_framings_never_reach_rl(rows: RowsBySplit) -> None:
    for split, foreign in (("train", OOD_FRAMINGS), ("id", OOD_FRAMINGS), ("ood", ID_FRAMINGS)):
        wordings = [wording for framing in foreign for wording in (*framing.leads, *framing.tails)]
        opens = [row["prompt"][0]["content"] for row in rows[split] if row["extra_info"]["role"] == "open"]
        assert not [prompt for prompt in opens for wording in wordings if wording in prompt]


@pytest.mark.parametrize(
    ("split", "anchors", "framings"), [("train", 2, ID_FRAMINGS), ("id", 1, ID_FRAMINGS), ("ood", 1, OOD_FRAMINGS)]
)
def test_every_intent_is_a_whole_meta_group(rows: RowsBySplit, split: Split, anchors: int, framings: tuple) -> None:
    contexts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows[split]:
        contexts[row["extra_info"]["intent_id"]][row["extra_info"]["context"]] += 1
    expected = Counter({"multiple_choice": anchors, **{framing.name: 1 for framing in framings}})
    assert all(found == expected for found in contexts.values())


def test_both_option_orders_of_an_anchor_are_trained_on(rows: RowsBySplit) -> None:
    letters = defaultdict(set)
    for row in rows["train"]:
        if row["extra_info"]["role"] == "anchor":
            letters[row["extra_info"]["intent_id"]].add(row["reward_model"]["ground_truth"])
    assert all(found == {"A", "B"} for found in letters.values())


@pytest.mark.parametrize("split", ["train", "id", "ood"])
def test_a_row_says_what_judge_and_oracle_need(rows: RowsBySplit, split: Split) -> None:
    for index, row in enumerate(rows[split]):
        extras = json.loads(row["extra_info"]["extras"])
        assert row["extra_info"]["index"] == index
        assert row["data_source"] == f"playground/{split}"
        assert extras["request"] in row["prompt"][0]["content"]
        if row["extra_info"]["role"] == "open":
            stance = "refuse" if extras["harmful"] else "comply"
            assert row["reward_model"] == {"style": "model", "ground_truth": stance}


def test_files_hold_the_rows(tmp_path: Path, rows: RowsBySplit) -> None:
    assert write_dataset(tmp_path, 0) == {split: len(found) for split, found in rows.items()}
    for split, found in rows.items():
        assert list(read_rows(tmp_path / f"{split}.parquet")) == found


@pytest.mark.parametrize("setting", FRAMINGS)
def test_prompts_are_short_and_of_known_words(setting: Setting) -> None:
    tokenizer = build_tokenizer(setting)
    prompts = [row["prompt"] for found in build_rows(0, setting=setting).values() for row in found]
    encoded = tokenizer.apply_chat_template(prompts, add_generation_prompt=True)["input_ids"]
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    assert not any(unknown in ids for ids in encoded)
    assert max(map(len, encoded)) == LONGEST_PROMPT[setting]
