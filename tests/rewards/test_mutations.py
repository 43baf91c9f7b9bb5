"""A mutation test of the rules: each accepts 200 right answers in varied dress, and none of 200 near misses."""

from __future__ import annotations

import pytest

from tests.rewards.dress import WRITERS, Case, cases
from tests.rewards.support import respond, row
from verl_air.rewards import compute_score

N = 200
SEED = 19


async def result(name: str, case: Case) -> dict[str, float]:
    rule = "row_verifier" if name.startswith("row:") else name
    extra = row(**case.extras, verifier=name.removeprefix("row:"))
    response = case.answer if name == "format" else respond(case.answer)
    return await compute_score("lab/train", response, case.truth, extra, routes={"*/*": rule})


@pytest.mark.parametrize("name", [*WRITERS, "row:multiple_choice"])
async def test_right_answers_score_the_maximum_and_near_misses_do_not(name: str) -> None:
    right, near = WRITERS[name.removeprefix("row:")]
    for case in cases(right, N, SEED):
        assert (scored := await result(name, case))["task_reward"] == scored["task_max"], case
    for case in cases(near, N, SEED):
        assert (scored := await result(name, case))["task_reward"] < scored["task_max"], case
