"""Reading what a run stored: strict for numbers, lenient for a report, clear about what is wrong."""

import json
import math
from pathlib import Path

import pytest

from tests.evaluation.support import row, write_jsonl
from verl_air.errors import DataError
from verl_air.evaluation import Record, read_records


def test_null_is_an_abstention_and_padding_is_left_out(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "0.jsonl", [row(acc=None, score=None), row(padding=True), row(acc=1.0, index=7)])
    abstained, judged = read_records(file)
    assert not abstained.judged
    assert math.isnan(abstained.score)
    assert judged.right
    assert judged.prompt == "7"


def test_a_run_without_air_is_named_as_such(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "0.jsonl", [{"input": "p", "output": "o", "acc": 1.0}])
    with pytest.raises(DataError, match=r"0\.jsonl, line 1: no intent_id, role, split"):
        read_records(file)


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"acc": "yes"}, "acc is 'yes'"), ({"extras": "{"}, "extras is '{'"), ({"extras": "[1]"}, "extras is")],
)
def test_what_a_column_cannot_hold(columns: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=f"line 3: {message}"):
        Record.from_mapping({**row(), **columns}, "line 3")


def test_a_line_cut_off_is_an_error_for_numbers(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "0.jsonl", [row(), row()])
    file.write_text(file.read_text()[:-30])
    with pytest.raises(DataError, match="line 2: not a JSON object"):
        read_records(file)


def test_no_file() -> None:
    with pytest.raises(DataError, match="no such file"):
        read_records("nowhere.jsonl")


def test_extras_may_come_decoded() -> None:
    assert Record.from_mapping(row(extras={"harmful": True}), "row").harmful is True
    assert Record.from_mapping(row(extras=json.dumps({"harmful": "yes"})), "row").harmful is None
