"""Several runs of a method: areas by hand, rows and differences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_air.errors import DataError
from verl_air.evaluation.seeds import area_under, seed_differences, seed_rows

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=6)


def test_areas_by_hand() -> None:
    curve = {10: 0.2, 20: 0.4, 40: 0.8}
    assert area_under(curve, [10, 20, 40]) == pytest.approx((10 * 0.3 + 20 * 0.6) / 30)
    with pytest.raises(DataError, match="no validation at step 30"):
        area_under(curve, [10, 30])
    with pytest.raises(DataError, match="two steps"):
        area_under(curve, [10])


@settings(deadline=None)
@given(values=SHARES)
def test_an_area_lies_within_its_curve_and_a_flat_one_is_its_height(values: list[float]) -> None:
    steps = list(range(0, 10 * len(values), 10))
    curve = dict(zip(steps, values, strict=True))
    assert min(values) - 1e-9 <= area_under(curve, steps) <= max(values) + 1e-9
    assert area_under(dict.fromkeys(steps, values[0]), steps) == pytest.approx(values[0])


def test_rows_and_differences_are_over_the_seeds_that_are_there() -> None:
    def run(*values: float) -> dict[str, dict[str, dict[int, float]]]:
        return {"lab/id": {"group_acc": dict(zip((0, 10, 20), values, strict=True))}}

    methods = {
        "a": {1: run(0.2, 0.4, 0.6), 2: run(0.2, 0.2, 0.2)},
        "b": {1: run(0.2, 0.6, 0.8), 2: run(0.2, 0.4, 0.6), 3: run(0.9, 0.9, 0.9)},
    }
    a, b = seed_rows(methods, "lab/id", "group_acc")
    assert (a.seeds, b.seeds) == (2, 3)
    assert a.end.value == pytest.approx(0.4)
    assert a.area.value == pytest.approx((0.4 + 0.2) / 2)
    (difference,) = seed_differences(methods, "a", "lab/id", "group_acc")
    assert (difference.method, difference.seeds, difference.ahead) == ("b", 2, 2)
    assert difference.end.value == pytest.approx((0.2 + 0.4) / 2)
    assert difference.area.value == pytest.approx((0.15 + 0.2) / 2)
    with pytest.raises(DataError, match="no method 'c'"):
        seed_differences(methods, "c", "lab/id", "group_acc")
    with pytest.raises(DataError, match="no acc of lab/id"):
        seed_rows(methods, "lab/id", "acc")
