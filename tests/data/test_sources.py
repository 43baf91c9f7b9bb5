from __future__ import annotations

import csv
import gzip
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_air.data.sources import SourceRow, read_source
from verl_air.errors import DataError

TEXTS = ["plain", 'with "quotes", and a comma', "two\nlines", "naïve \u2028 separator"]


def csv_of(texts: list[str], delimiter: str = ",") -> str:
    quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
    return f"goal{delimiter}n\n" + "".join(f"{text}{delimiter}{n}\n" for n, text in enumerate(quoted))


def write(path: Path, kind: str) -> Path:
    path = path / f"source.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"goal": TEXTS, "n": list(range(4))}), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"goal": text, "n": n}) + "\n\n" for n, text in enumerate(TEXTS)))
    else:
        path.write_text(csv_of(TEXTS, "\t" if kind == "tsv" else ","), encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_texts(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    source = read_source(str(path))
    assert [record.text("goal") for record in source.rows] == TEXTS
    assert source.columns == ("goal", "n")
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"", r"x\.csv: the file is empty"),
        ("x.csv", b"goal\n", r"x\.csv: the file has no rows"),
        ("x.csv", "goal\nfine\ncaf\xe9\n".encode("latin1"), r"x\.csv, line 3: not UTF-8 \(byte 0xe9\)"),
        ("x.csv", b"\xff\xfeg\x00\x00\xd8x\x00", r"x\.csv: not UTF-16, .* at byte 4\). Download it again"),
        ("x.csv", b"goal,n\na,1\nb\n", r"x\.csv, line 3: the row does not have 2 columns"),
        ("x.csv", b'goal\n"never closed\n', r"x\.csv, line \d: malformed CSV"),
        ("x.jsonl", b'{"goal": "a"}\n{"goal": \n', r"x\.jsonl, line 2: not JSON"),
        ("x.jsonl", b"[1]\n", r"x\.jsonl, line 1: a JSON object is expected, got list"),
        ("x.parquet", b"hello", r"x\.parquet: not a parquet file"),
        ("x.xlsx", b"hello", r"x\.xlsx: unknown kind of file; known: \.csv"),
        ("a.csv", b"x,request,x\n1,2,3\n", "line 1: the column 'x' is there twice"),
        ("a.csv", b'request\na\n"b\nc\n', r"line 3: malformed CSV .* may never close"),
        ("a.json", b'{"request": ["a"], "id": []}', "different lengths"),
        ("a.json", b'[{"request": "a"}, 3]', "element 1: an object or a text is expected, got int"),
        ("a.json", b'[{"request": "a"},]', "line 1, column 19: not JSON"),
        ("a.csv.gz", b"request\na\n", "not a whole gzip file"),
    ],
)
def test_bad_files_are_refused_with_their_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_source(str(tmp_path / name))


def test_a_missing_file_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        read_source(str(tmp_path / "gone.csv"))


def test_missing_columns_list_those_present(tmp_path: Path) -> None:
    source = read_source(str(write(tmp_path, "csv")))
    with pytest.raises(DataError, match=r"source\.csv: no column 'colour'; the columns are goal, n"):
        source.require("goal", "colour")
    with pytest.raises(DataError, match=r"none of the columns 'a', 'b'; the columns are goal, n\. Name yours with"):
        source.find_column("a", "b")


@pytest.mark.slow
def test_a_folder_goes_through_the_hub_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``datasets.load_dataset`` takes folders and hub names alike, so this runs the hub's path without a network."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder, "parquet")
    source = read_source(f"{folder}@train")
    assert [record.text("goal") for record in source.rows] == TEXTS
    assert len(source.sha256) == 64
    with pytest.raises(DataError, match="the hub could not give a data set of that name"):
        read_source(f"{folder}@no_such_split")


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="neither a file nor a hub name"):
        read_source("a:b:c")


LONG = "x" * 200_000


@pytest.mark.parametrize(
    ("name", "content", "requests"),
    [
        ("array.json", b'[{"request": "a"}, {"request": "b"}]', ["a", "b"]),
        ("texts.json", b'["a", "b"]', ["a", "b"]),
        ("columns.json", b'{"request": ["a", "b"], "id": [1, 2]}', ["a", "b"]),
        ("lines.txt", b"a\n\n b \n", ["a", "b"]),
        ("long.csv", f'request\n"{LONG}"\n'.encode(), [LONG]),
        ("packed.csv.gz", gzip.compress(b"request\na\n", mtime=0), ["a"]),
        ("wide.csv", "request\nä\n".encode("utf-16"), ["ä"]),
        ("marked.jsonl", b'\xef\xbb\xbf{"request": "a"}\n', ["a"]),
        ("chat.jsonl", b'{"request": [{"role": "user", "content": "a"}]}', ["a"]),
        (
            "turns.jsonl",
            b'{"request": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hi!"}, '
            b'{"role": "user", "content": "a"}, {"role": "assistant", "content": "no"}]}',
            ["user: Hi.\nassistant: Hi!\nuser: a"],
        ),
    ],
)
def test_formats(tmp_path: Path, name: str, content: bytes, requests: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    assert [row.text("request") for row in read_source(str(tmp_path / name)).rows] == requests


@pytest.mark.parametrize("value", [{"a": 1}, [1], [{"role": "assistant", "content": "a"}]])
def test_a_list_that_is_no_chat_never_becomes_a_request(value: object) -> None:
    with pytest.raises(DataError, match="row 3"):
        SourceRow("row 3", {"request": value}).text("request")


def test_reading_a_short_table_does_not_lower_the_limit_of_other_csv_readers(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    (tmp_path / "short.csv").write_text("goal\nDo it\n")
    read_source(str(tmp_path / "short.csv"))
    assert csv.field_size_limit() >= limit


def test_a_chat_that_a_table_holds_as_text_is_read_or_refused() -> None:
    chat = '[{"role": "user", "content": "a"}]'
    assert SourceRow("row 3", {"request": chat}).text("request") == "a"
    with pytest.raises(DataError, match="row 3, column 'request': a chat as text that is not JSON"):
        SourceRow("row 3", {"request": chat.replace('"', "'")}).text("request")
