"""Several runs of a method: areas and steps by hand, rows and differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_air.errors import DataError
from verl_air.evaluation.seeds import area_under, seed_differences, seed_rows, steps_to

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=6)


def test_areas_and_steps_by_hand() -> None:
    curve = {10: 0.2, 20: 0.4, 40: 0.8}
    assert area_under(curve, [10, 20, 40]) == pytest.approx((10 * 0.3 + 20 * 0.6) / 30)
    assert steps_to(curve, 0.6, [10, 20, 40]) == pytest.approx(30)
    assert steps_to(curve, 0.1, [10, 20, 40]) == 10
    assert steps_to(curve, 0.9, [10, 20, 40]) is None
    assert steps_to({10: 0.2, 20: 0.7, 40: 0.1}, 0.7, [10, 20, 40]) == pytest.approx(20)
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


@settings(deadline=None)
@given(values=SHARES, threshold=st.floats(0, 1))
def test_the_step_to_a_threshold_is_where_the_lines_first_cross_it(values: list[float], threshold: float) -> None:
    steps = list(range(0, 10 * len(values), 10))
    found = steps_to(dict(zip(steps, values, strict=True)), threshold, steps)
    if found is None:
        assert max(values) < threshold
    else:
        height = float(np.interp(found, steps, values))
        assert height >= threshold - 1e-9
        before = np.linspace(steps[0], found, 50)[:-1]
        assert (np.interp(before, steps, values) <= threshold + 1e-9).all() or found == steps[0]


def test_rows_and_differences_are_over_the_seeds_that_are_there() -> None:
    def run(*values: float) -> dict[str, dict[str, dict[int, float]]]:
        return {"lab/id": {"group_acc": dict(zip((0, 10, 20), values, strict=True))}}

    methods = {
        "a": {1: run(0.2, 0.4, 0.6), 2: run(0.2, 0.2, 0.2)},
        "b": {1: run(0.2, 0.6, 0.8), 2: run(0.2, 0.4, 0.6), 3: run(0.9, 0.9, 0.9)},
    }
    a, b = seed_rows(methods, "lab/id", "group_acc", 0.5)
    assert (a.seeds, a.reached, b.reached) == (2, 1, 3)
    assert a.end.value == pytest.approx(0.4)
    assert a.steps.value == pytest.approx((15 + 20) / 2)
    assert (a.steps.low, a.steps.high) == (0, 20)  # two runs 5 steps apart: t alone says -14 to 49
    (difference,) = seed_differences(methods, "a", "lab/id", "group_acc", 0.5)
    assert (difference.method, difference.seeds, difference.ahead) == ("b", 2, 2)
    assert difference.end.value == pytest.approx((0.2 + 0.4) / 2)
    assert difference.area.value == pytest.approx((0.15 + 0.2) / 2)
    with pytest.raises(DataError, match="no method 'c'"):
        seed_differences(methods, "c", "lab/id", "group_acc", 0.5)
    with pytest.raises(DataError, match="no acc of lab/id"):
        seed_rows(methods, "lab/id", "acc", 0.5)
