"""Reading what a run stored: strict for numbers, lenient for a report, clear about what is wrong."""

import json
import math
from pathlib import Path

import pytest

from tests.evaluation.support import row, write_jsonl
from verl_air.errors import DataError
from verl_air.evaluation import ScoredRollout, read_records


def test_null_is_an_abstention_and_padding_is_left_out(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "0.jsonl", [row(acc=None, score=None), row(padding=True), row(acc=1.0, index=7)])
    abstained, judged = read_records(file)
    assert (abstained.judged, abstained.verdict, judged.verdict) == (False, "no verdict", "right")
    assert math.isnan(abstained.score)
    assert judged.prompt == "7"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"acc": "yes"}, "acc is 'yes'"),
        ({"extras": "{"}, "extras is '{'"),
        ({"extras": "[1]"}, "extras is"),
        ({"intent_id": None, "role": None}, r"no intent_id, role; was this stored by a run with an `air:` recipe"),
    ],
)
def test_what_a_column_cannot_be(columns: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"0\.jsonl, line 2: {message}"):
        read_records(write_jsonl(tmp_path / "0.jsonl", [row(), {**row(), **columns}]))


def test_a_line_cut_off_is_an_error_for_numbers(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "0.jsonl", [row(), row()])
    file.write_text(file.read_text()[:-30])
    with pytest.raises(DataError, match="line 2: not a JSON object"):
        read_records(file)
    with pytest.raises(DataError, match="no such file"):
        read_records(tmp_path / "1.jsonl")


def test_extras_may_come_decoded() -> None:
    assert ScoredRollout.from_mapping(row(extras={"harmful": True}), "row").harmful is True
    assert ScoredRollout.from_mapping(row(extras=json.dumps({"harmful": "yes"})), "row").harmful is None
