"""A reward out of its range on a tenth of the rows ends the run with its own message, in training and validation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.runs.faulty_rewards import is_faulty
from tests.runs.launch import KWARGS, NO_JUDGE, NO_VALIDATION, SMALL, first_intents, main_ppo
from tests.runs.test_async_modes import COLOCATE, SEPARATE

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.timeout(1500)]

STEPS = 12
MESSAGE = re.compile(
    r"RewardError: reward 'a_tenth_out_of_range' returned 7\.0 for row (\d+) \(intent [^)]+\) of 'playground/(\w+)', "
    r"outside its declared range \[-1\.0, 1\.25\]"
)


def routed(place: str) -> tuple[str, ...]:
    """The faulty reward for one kind of row, sound ones for the rest, and no judge."""
    routes = {
        "playground/anchor": "multiple_choice",
        "playground/open": "playground_oracle",
        "playground/open/train": "playground_oracle",
        place: "a_tenth_out_of_range",
    }
    return (
        *SMALL,
        *NO_JUDGE,
        "++air.check_judge=False",  # which would refuse this reward before the run
        f"{KWARGS}.modules=[verl_air.playground.rewards,tests.runs.faulty_rewards]",
        f"++{KWARGS}.routes={{{','.join(f'{pattern}:{name}' for pattern, name in routes.items())}}}",
        f"trainer.total_training_steps={STEPS}",
        "trainer.save_freq=1",
    )


@pytest.mark.parametrize(
    "mode",
    [
        (),
        pytest.param(COLOCATE, marks=pytest.mark.exhaustive),
        SEPARATE,
    ],
    ids=["sync", "colocate", "separate"],
)
def test_a_mistake_ends_training_before_its_rows_are_trained_on(
    mode: tuple[str, ...], playground_files: Path, tmp_path: Path
) -> None:
    run = main_ppo(tmp_path, playground_files, *routed("playground/open/train"), *NO_VALIDATION, *mode, fails=True)
    assert run.status == 1
    row, split = MESSAGE.search(run.log).groups()
    assert (is_faulty(int(row)), split) == (True, "train")
    trained = sorted(run.metrics()) if (tmp_path / "metrics.jsonl").is_file() else []
    assert len(trained) < STEPS
    assert not [row["index"] for step in trained for row in run.rollouts(step) if is_faulty(row["index"])]


def test_a_mistake_ends_validation(playground_files: Path, tmp_path: Path) -> None:
    held_out = first_intents(playground_files / "id.parquet", tmp_path, 5)
    overrides = (*routed("playground/open/id"), f"data.val_files=[{held_out}]", "trainer.test_freq=1")
    run = main_ppo(tmp_path / "run", playground_files, *overrides, fails=True)
    assert run.status == 1
    assert MESSAGE.search(run.log)[2] == "id"
    assert not list((tmp_path / "run").glob("validation/*.jsonl")), "no metrics of a validation that met a mistake"
