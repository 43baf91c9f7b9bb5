"""Intents that verl's prompt filter leaves incomplete do not end a run, unless too few others remain."""

from __future__ import annotations

import pytest

from verl_air.data.groups import build_group_index
from verl_air.errors import DataError
from verl_air.training.sampler import report_left_out


def report(intents: int, batch: int) -> None:
    """Of so many intents, the first six lost a row to the filter."""
    ids = [f"safety/{z}" for z in range(intents) for _ in range(3 if z < 6 else 4)]
    roles = [role for z in range(intents) for role in ("anchor", *["open"] * (2 if z < 6 else 3))]
    index = build_group_index(ids, roles, anchors=1, open_=3, source="x", leave_out_incomplete=True)
    report_left_out(index, batch // 4, max_prompt_length=64)


def test_they_are_counted_and_named() -> None:
    message = r"max_prompt_length=64 leaves 6 intents with fewer rows .*: safety/0, safety/1, .* safety/4, \.\.\."
    with pytest.warns(UserWarning, match=message):
        report(intents=10, batch=16)


def test_too_few_others_stop_the_run() -> None:
    with pytest.raises(
        DataError, match=r"leaves 6 intents .* The other 4 are fewer than the 5 of a step: raise the limit"
    ):
        report(intents=10, batch=20)
