"""``training/{metrics,best_checkpoint,rows}.py``: what verl makes of validation, and how it deletes checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
from verl.trainer.ppo.metric_utils import process_validation_metrics
from verl.utils.checkpoint.checkpoint_manager import BaseCheckpointManager, find_latest_ckpt_path

from tests.contract.expect import calls_in, function_in, holds, source_of, text_of

BASE = "verl.trainer.ppo.v1.trainer_base"
METRICS, BEST = "verl_air/training/metrics.py", "verl_air/training/best_checkpoint.py"


def test_failed_and_abstained_sessions_have_accuracy_zero() -> None:
    """Prompt a is whole, b lost a session, c abstained once, d lost both."""
    accs = {"a": [1.0, 1.0], "b": [1.0], "c": [1.0, None]}
    uids = [uid for uid, values in accs.items() for _ in values]
    columns = {"acc": [value for values in accs.values() for value in values], "reward": [1.0] * len(uids)}
    expected = {("s", uid): 2 for uid in "abcd"}
    found = process_validation_metrics(["s"] * len(uids), uids, columns, expected_acc_counts=expected)["s"]
    holds(
        found["acc"]["mean@2"] == pytest.approx((1 + 0.5 + 0.5 + 0) / 4),
        f"acc/mean@K counts a session without a verdict as 0, over all prompts; it is {dict(found['acc'])}",
        used_by=METRICS,
    )
    holds(
        {name: value for name, value in found["acc_success_only"].items() if name.startswith("mean")}
        == {"mean@2": 1.0, "mean@1": 1.0},
        "acc_success_only is over verdicts, named by how many a prompt has",
        used_by=METRICS,
    )


def test_a_nan_spoils_the_mean_of_its_source() -> None:
    """Why ``without_constants`` turns NaN into None."""
    found = process_validation_metrics(["s"] * 2, ["a", "b"], {"score": [1.0, float("nan")]})["s"]["score"]["mean@1"]
    holds(found != found, "the mean of a column with a NaN is NaN (else pass NaN on)", used_by=METRICS)


def test_every_numeric_column_becomes_a_metric() -> None:
    found = process_validation_metrics(["s"], ["a"], {"score_min": [-2.0]})["s"]
    holds("score_min" in found, "constants become curves (else remove RANGES)", used_by=METRICS)


def test_validation_comes_after_saving_and_ends_with_its_metrics() -> None:
    calls = calls_in(function_in(source_of(BASE), "PPOTrainer.fit"))
    last_validation = len(calls) - 1 - calls[::-1].index("self._validate")
    holds(calls.index("self._save_checkpoint") < last_validation, "a step is saved, then validated", used_by=BEST)
    holds(
        text_of(BASE, "PPOTrainer._validate").rfind("return self._val_metrics_update(") > 0,
        "_validate returns what _val_metrics_update does",
        used_by="verl_air/training/trainer.py",
    )
    setup = text_of(BASE, "PPOTrainer._setup")
    holds("self._load_checkpoint()" in setup, "global_steps is known before on_init_end", used_by=BEST)


def test_checkpoints_are_named_and_found_like_this(tmp_path: Path) -> None:
    text = text_of(BASE, "PPOTrainer._save_checkpoint")
    for code in ("f'global_step_{self.global_steps}'", "os.path.join(local_global_step_folder, 'actor')"):
        holds(code in text, f"a checkpoint's folder is made of {code}", used_by=BEST)
    (tmp_path / "global_step_7").mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("7")
    holds(
        find_latest_ckpt_path(str(tmp_path)) == str(tmp_path / "global_step_7"),
        "latest_checkpointed_iteration.txt names the checkpoint of a folder",
        used_by=BEST,
    )


def test_older_checkpoints_are_removed_by_path(tmp_path: Path) -> None:
    manager: BaseCheckpointManager = object.__new__(BaseCheckpointManager)
    manager.previous_saved_paths = []
    for step in (1, 2):
        (tmp_path / f"global_step_{step}" / "actor").mkdir(parents=True)
        manager.register_checkpoint(str(tmp_path / f"global_step_{step}" / "actor"), 1)
    left = sorted(path.parent.name for path in tmp_path.glob("*/actor"))
    holds(left == ["global_step_2"], "older ones are removed (else the best needs no copy)", used_by=BEST)


def test_the_validation_data_set_names_its_local_files() -> None:
    holds(
        "self.data_files[i] = copy_to_local(src=parquet_file" in text_of("verl.utils.dataset.rl_dataset"),
        "RLHFDataset.data_files holds local paths",
        used_by="verl_air/training/trainer.py (on_init_end)",
    )
    holds(
        "self.val_dataset = " in text_of(BASE, "PPOTrainer._init_dataloader"),
        "the trainer keeps val_dataset",
        used_by="verl_air/training/trainer.py (on_init_end)",
    )
