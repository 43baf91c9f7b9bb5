"""The cases from public bug reports (../shared/cases) that a rule decides, each with its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.rewards.support import row
from verl_air.rewards import compute_score

CASES = Path(__file__).parents[2].parent / "shared" / "cases" / "cases.jsonl"


def read_cases() -> list[Any]:
    """One parameter per case; none, with a reason, where the folder is absent."""
    if not CASES.is_file():
        return [pytest.param({}, marks=pytest.mark.skip(reason="the cases are not there (../shared/cases)"))]
    cases = map(json.loads, CASES.read_text(encoding="utf-8").splitlines())
    return [pytest.param(case, id=f"{case['kind']} ({case['source']})") for case in cases if "reward" in case]


@pytest.mark.parametrize("case", read_cases())
async def test_a_case_from_a_bug_report(case: dict[str, Any]) -> None:
    extra = row(**case["extras"])
    result = await compute_score(
        "lab/train", case["response"], case["ground_truth"], extra, routes={"*/*": case["reward"]}
    )
    assert result["acc"] == case["right"]
    assert result["abstained"] == 0.0
