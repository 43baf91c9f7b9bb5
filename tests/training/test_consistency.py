"""How rows that are no whole batch are divided: evenly, within the limit, with as few copies as that takes."""

from __future__ import annotations

import pytest

from verl_air.training.consistency import even_split


@pytest.mark.parametrize("limit", [None, 1, 2, 5, 24])
@pytest.mark.parametrize("ranks", [1, 2, 8])
@pytest.mark.parametrize("rows", [1, 7, 18, 24, 25])
def test_rows_divide_evenly(rows: int, ranks: int, limit: int | None) -> None:
    total, micro_batch = even_split(rows, ranks, limit)
    assert total >= rows
    assert total % (ranks * micro_batch) == 0
    assert limit is None or micro_batch <= limit
    assert total < rows + ranks * (total // ranks // micro_batch + 1)


def test_one_rank_without_a_limit_has_no_copies() -> None:
    assert even_split(18, 1, None) == even_split(18, 1, 24) == (18, 18)
