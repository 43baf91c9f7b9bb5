from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_air.data import make_row, write_rows
from verl_air.data.groups import GroupIndex, build_group_index, read_groups
from verl_air.data.schema import Role
from verl_air.errors import DataError

ROWS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["anchor", "open"])), min_size=1, max_size=60)


def as_dict(index: GroupIndex) -> dict[str, tuple[list[int], list[int]]]:
    return {name: (index.anchors(z).tolist(), index.open(z).tolist()) for z, name in enumerate(index.names.to_pylist())}


@given(ROWS)
def test_the_index_is_what_a_dictionary_would_hold(rows: list[tuple[str, str]]) -> None:
    expected: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for number, (intent, role) in enumerate(rows):
        expected[intent][role == "open"].append(number)
    ids, roles = zip(*rows, strict=True)
    index = build_group_index(ids, roles, anchors=0, open_=0, source="rows")
    assert as_dict(index) == dict(expected)
    assert index.names.to_pylist() == list(expected), "intents are in order of their first row"
    assert len(index) == len(expected)


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        np.array,
        pa.array,
        lambda values: pa.chunked_array([values[:2], values[2:]]),
        lambda values: pa.array(values).dictionary_encode(),
        lambda values: pa.array(values, type=pa.large_string()),
    ],
)
def test_columns_of_any_kind_give_the_same_index(wrap) -> None:
    ids, roles = ["a", "b", "a", "b"], ["anchor", "open", "open", "anchor"]
    index = build_group_index(wrap(ids), wrap(roles), anchors=1, open_=1, source="rows")
    assert as_dict(index) == {"a": ([0], [2]), "b": ([3], [1])}


def test_incomplete_intents_are_listed_and_counted() -> None:
    ids = [f"z{n}" for n in range(8)]
    with pytest.raises(DataError, match="7 of 8 intents are incomplete") as caught:
        build_group_index([*ids, "z0"], ["anchor"] * 8 + ["open"], anchors=1, open_=1, source="train.parquet")
    message = str(caught.value)
    assert "train.parquet, row 1: intent z1: 1 anchor(s), 0 open" in message
    assert "z5" in message
    assert "z6" not in message
    assert "and 2 more" in message


def test_incomplete_intents_can_be_left_out_and_are_named() -> None:
    ids, roles = ["a", "b", "c", "a", "c", "b"], ["open", "anchor", "anchor", "anchor", "open", "anchor"]
    index = build_group_index(ids, roles, anchors=1, open_=1, source="x", leave_out_incomplete=True)
    assert as_dict(index) == {"a": ([3], [0]), "c": ([2], [4])}
    assert index.left_out == ("b",)


@pytest.mark.parametrize(
    ("ids", "roles", "message"),
    [
        (["a", None], ["anchor", "open"], r"x, row 1: extra_info.intent_id is missing \(1 such"),
        (["a", "a"], ["anchor", "judge"], "x, row 1: extra_info.role must be one of anchor, open"),
        (["a", "a"], ["anchor", None], "x, row 1: extra_info.role must be one of"),
        (["a"], ["anchor", "open"], "1 intent ids but 2 roles"),
        ([], [], "x: no rows"),
    ],
)
def test_bad_columns_are_refused(ids: list, roles: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_group_index(ids, roles, anchors=0, open_=0, source="x")


def write(path: Path, *rows: tuple[str, Role], domain: str = "lab") -> Path:
    common = {"prompt": "p", "ground_truth": "A", "context": "c", "domain": domain, "split": "train"}
    return write_rows(path, (make_row(**common, intent_id=z, role=role, index=n) for n, (z, role) in enumerate(rows)))


def test_row_numbers_continue_over_files(tmp_path: Path) -> None:
    first = write(tmp_path / "1.parquet", ("a", "anchor"), ("a", "open"))
    second = write(tmp_path / "2.parquet", ("b", "open"), ("b", "anchor"), ("a", "open"))
    assert as_dict(read_groups([first, second], 1, 1)) == {"lab/a": ([0], [1, 4]), "lab/b": ([3], [2])}
    assert as_dict(read_groups(str(first), 1, 1)) == {"lab/a": ([0], [1])}


def test_the_file_and_its_own_row_are_named(tmp_path: Path) -> None:
    first = write(tmp_path / "1.parquet", ("a", "anchor"), ("a", "open"))
    second = write(tmp_path / "2.parquet", ("a", "open"), ("b", "anchor"))
    with pytest.raises(DataError, match=r"2\.parquet, row 1: intent lab/b: 1 anchor\(s\), 0 open"):
        read_groups([first, second], 1, 1)
    with pytest.raises(DataError, match="no data file given"):
        read_groups([], 1, 1)


def test_the_same_id_in_two_domains_is_two_intents(tmp_path: Path) -> None:
    paths = [write(tmp_path / d, ("a", "anchor"), ("a", "open"), domain=d) for d in ("lab", "field")]
    assert as_dict(read_groups(paths, 1, 1)) == {"lab/a": ([0], [1]), "field/a": ([2], [3])}
