"""The real thing, small: main_ppo with Ray, TransferQueue, FSDP2 and vLLM, a served judge, three steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from tests.runs.launch import NO_VALIDATION, ORACLE, SMALL, Run, first_intents, main_ppo
from verl_air.evaluation import accuracy_of, read_records

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.timeout(1500)]

STEPS = ("trainer.total_training_steps=3", "trainer.test_freq=3")


@pytest.fixture(scope="module")
def run(playground_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    held_out = [first_intents(playground_files / f"{split}.parquet", folder, 3) for split in ("id", "ood")]
    files = f"data.val_files=[{','.join(held_out)}]"
    return main_ppo(folder, playground_files, *SMALL, *STEPS, "trainer.save_freq=2", files)


def test_every_step_trains_on_whole_meta_groups(run: Run) -> None:
    for step in (1, 2, 3):
        run.assert_whole_groups(step)


def test_anchors_have_no_weight_and_open_rows_have_the_objectives(run: Run) -> None:
    for row in run.rollouts(1):
        assert math.isfinite(row["air_weight"])
        if row["role"] == "anchor":
            assert row["air_weight"] == 0.0


def test_the_served_judge_scored_every_open_row(run: Run) -> None:
    open_rows = [row for row in run.rollouts(1) if row["role"] == "open"]
    assert all(row["abstained"] == 0.0 for row in open_rows)
    assert {row["task_reward"] for row in open_rows} <= {1.25, -1.0}


def test_metrics_are_there(run: Run) -> None:
    metrics = run.metrics()
    for step in (1, 2, 3):
        for name in ("actor/air_loss", "actor/pg_loss", "air/gap/mean", "air/groups/complete", "air/zero_std_rate"):
            assert math.isfinite(metrics[step][name]), (step, name)
        assert metrics[step]["air/groups/complete"] == 2
        assert metrics[step]["training/rollout_probs_diff_max"] < 1e-4  # vLLM has the actor's weights
    for name in ("acc", "group_acc", "anchor_acc", "open_acc"):
        assert 0.0 <= metrics[3][f"val-core/playground/id/{name}"] <= 1.0


def test_validation_metrics_agree_with_the_stored_rollouts(run: Run) -> None:
    records = [record for record in read_records(run.folder / "validation" / "3.jsonl") if record.split == "id"]
    stored = accuracy_of(records)
    assert (stored.completions, stored.intents) == (15, 3)
    assert run.metrics()[3]["val-core/playground/id/acc"] == pytest.approx(stored.prompts)
    assert run.metrics()[3]["val-core/playground/id/group_acc"] == pytest.approx(stored.groups)


def test_the_folder_explains_itself(run: Run) -> None:
    config = yaml.safe_load((run.folder / "checkpoints" / "config.yaml").read_text())
    assert config["air"]["gap"] == "positive"
    assert (run.folder / "checkpoints" / "run.json").is_file()


def test_a_resumed_run_sees_the_prompts_it_would_have_seen(run: Run, playground_files: Path, tmp_path: Path) -> None:
    """From the checkpoint of step 2, with an oracle for a judge: step 3 has the uninterrupted run's prompts."""
    checkpoint = run.folder / "checkpoints" / "global_step_2"
    resumed = main_ppo(
        tmp_path,
        playground_files,
        *SMALL,
        *STEPS,
        *NO_VALIDATION,
        "trainer.save_freq=-1",
        "trainer.resume_mode=resume_path",
        f"trainer.resume_from_path={checkpoint}",
        *ORACLE,
    )
    assert sorted(resumed.metrics()) == [3]
    assert resumed.prompts(3) == run.prompts(3)
    assert run.prompts(3) != run.prompts(2)
