from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_air.data import DataRow, PromptMessage, make_row, read_rows, write_rows
from verl_air.data.check import check_files
from verl_air.data.groups import read_groups
from verl_air.data.schema import SCHEMA, SCHEMA_VERSION, VERSION_KEY, open_table, read_extra_columns, read_extra_info
from verl_air.errors import DataError


def some_row(index: int = 0, **changes: Any) -> DataRow:
    columns = {
        "prompt": "What is right?",
        "ground_truth": "A",
        "intent_id": f"z{index}",
        "role": "anchor",
        "index": index,
    }
    place = {"context": "multiple_choice", "domain": "lab", "split": "train", "extras": '{"naïve": "…"}'}
    return make_row(**{**columns, **place, **changes})


def with_version(path: Path, version: str | None) -> Path:
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: version} if version else None), path)
    return path


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    chat = [PromptMessage(role="system", content="s"), PromptMessage(role="user", content="u")]
    rows = [some_row(0), some_row(1, prompt=chat)]
    path = write_rows(tmp_path / "new" / "rows.parquet", iter(rows))
    assert list(read_rows(path)) == rows
    assert pq.read_schema(path).equals(SCHEMA)


def test_extras_are_encoded() -> None:
    assert json.loads(some_row(extras={"b": "é", "a": [1]})["extra_info"]["extras"]) == {"a": [1], "b": "é"}
    with pytest.raises(DataError, match="domain 'a/b': a domain must not contain a slash"):
        some_row(domain="a/b")


def test_the_version_is_in_the_metadata_and_older_files_load(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.parquet", [some_row()])
    assert pq.read_schema(path).metadata == {VERSION_KEY: str(SCHEMA_VERSION).encode()}
    with_version(path, None)
    assert list(read_rows(path)) == [some_row()]


@pytest.mark.parametrize("version", [str(SCHEMA_VERSION + 1), "1.5", "x"])
@pytest.mark.parametrize("reader", [open_table, lambda path: read_groups(path, 1, 0), lambda path: check_files([path])])
def test_a_newer_version_is_refused_with_what_to_do(tmp_path: Path, version: str, reader: Any) -> None:
    path = with_version(write_rows(tmp_path / "rows.parquet", [some_row()]), version)
    with pytest.raises(DataError, match=rf"rows\.parquet: data schema version {version}, .* up to 1. Upgrade verl-air"):
        reader(path)


def test_many_row_groups_keep_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_air.data.schema.ROW_GROUP_SIZE", 3)
    path = write_rows(tmp_path / "rows.parquet", (some_row(n) for n in range(10)))
    assert pq.ParquetFile(path).num_row_groups == 4
    expected = {"index": list(range(10)), "intent_id": [f"z{n}" for n in range(10)]}
    assert read_extra_info(path, ["index", "intent_id"]) == expected


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.parquet", [some_row()])

    def rows() -> Iterator[DataRow]:
        yield some_row(1)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_rows(path, rows())
    with pytest.raises(DataError, match="no rows"):
        write_rows(tmp_path / "empty.parquet", [])
    assert [row["extra_info"]["index"] for row in read_rows(path)] == [0]
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_data_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.parquet: no such file"):
        open_table(tmp_path / "gone.parquet")
    (tmp_path / "x.parquet").write_text("hello")
    with pytest.raises(DataError, match=r"x\.parquet: not a parquet file"):
        open_table(tmp_path / "x.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "colour": ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"missing column\(s\) data_source, .*the file has prompt, colour"):
        open_table(tmp_path / "x.parquet")
    path = write_rows(tmp_path / "rows.parquet", [some_row()])
    with pytest.raises(DataError, match="extra_info lacks colour; it has index, intent_id"):
        read_extra_columns(path, ["index", "colour"])
