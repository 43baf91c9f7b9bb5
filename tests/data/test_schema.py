from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_air.data.schema import (
    SCHEMA,
    ChatMessage,
    DataRow,
    make_row,
    open_table,
    read_extra_columns,
    read_extra_info,
    read_rows,
    write_rows,
)
from verl_air.errors import DataError


def some_row(index: int = 0, prompt: str | list[ChatMessage] = "What is right?") -> DataRow:
    return make_row(
        prompt=prompt,
        ground_truth="A",
        intent_id=f"z{index}",
        role="anchor",
        context="multiple_choice",
        domain="lab",
        split="train",
        index=index,
        extras='{"naïve": "…"}',
    )


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [some_row(0), some_row(1, [ChatMessage(role="system", content="s"), ChatMessage(role="user", content="u")])]
    path = write_rows(tmp_path / "new" / "rows.parquet", iter(rows))
    assert list(read_rows(path)) == rows
    assert pq.read_schema(path).equals(SCHEMA)


def test_many_row_groups_keep_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_air.data.schema.ROW_GROUP_SIZE", 3)
    path = write_rows(tmp_path / "rows.parquet", (some_row(n) for n in range(10)))
    assert pq.ParquetFile(path).num_row_groups == 4
    assert read_extra_info(path, ["index", "intent_id"]) == {
        "index": list(range(10)),
        "intent_id": [f"z{n}" for n in range(10)],
    }


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.parquet", [some_row()])

    def rows() -> Iterator[DataRow]:
        yield some_row(1)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_rows(path, rows())
    assert [row["extra_info"]["index"] for row in read_rows(path)] == [0]
    assert list(tmp_path.iterdir()) == [path]


def test_no_rows_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        write_rows(tmp_path / "rows.parquet", [])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.parquet: no such file"):
        open_table(tmp_path / "gone.parquet")


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("hello")
    with pytest.raises(DataError, match=r"x\.parquet: not a parquet file"):
        open_table(tmp_path / "x.parquet")


def test_missing_columns_are_named_with_those_present(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "colour": ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"missing column\(s\) data_source, .*the file has prompt, colour"):
        open_table(tmp_path / "x.parquet")


def test_missing_fields_of_extra_info_are_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.parquet", [some_row()])
    with pytest.raises(DataError, match="extra_info lacks colour; it has index, intent_id"):
        read_extra_columns(path, ["index", "colour"])
