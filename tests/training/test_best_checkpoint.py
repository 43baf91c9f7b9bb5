"""The best checkpoint outlives verl's own removal of older ones, and a resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from verl.utils.checkpoint.checkpoint_manager import BaseCheckpointManager, find_latest_ckpt_path

from verl_air.errors import ConfigError
from verl_air.training.best_checkpoint import BestCheckpoint, metric_value


class Run:
    """A run that saves as verl's checkpoint managers do: they are verl's own, with two checkpoints kept."""

    def __init__(self, folder: Path, *, resumed: int = 0, metric: str = "group_acc") -> None:
        self.folder = folder
        self.best = BestCheckpoint(folder, metric, resumed=resumed)
        self.manager: BaseCheckpointManager = object.__new__(BaseCheckpointManager)
        self.manager.previous_saved_paths = []

    def step(self, step: int, value: float, *, saved: bool = True) -> None:
        if saved:
            self.best.before_save(step)
            actor = self.folder / f"global_step_{step}" / "actor"
            self.manager.ensure_checkpoint_capacity(2)
            (actor / "huggingface").mkdir(parents=True, exist_ok=True)
            (actor / "model_world_size_1_rank_0.pt").write_text(f"weights of step {step}")
            (actor.parent / "data.pt").write_text("data")
            self.manager.register_checkpoint(str(actor), 2)
            self.best.saved_step = step
        self.best.consider(step, {"val-core/toy/id/group_acc": value})

    @property
    def record(self) -> dict:
        return json.loads((self.folder / "best_checkpoint.json").read_text())

    @property
    def weights(self) -> str:
        best = find_latest_ckpt_path(str(self.folder / "best"))
        assert best is not None
        return Path(best, "actor", "model_world_size_1_rank_0.pt").read_text()


def test_the_best_survives_verls_removal_of_older_checkpoints(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step, value in enumerate([0.2, 0.7, 0.4, 0.7, 0.5], start=1):
        run.step(step, value)
    assert not (tmp_path / "global_step_2" / "actor").exists(), "verl kept it: nothing is shown"
    assert run.record == {"global_step": 2, "metric": "group_acc", "value": 0.7, "mode": "max"}
    assert run.weights == "weights of step 2"
    assert [path.name for path in (tmp_path / "best").iterdir() if path.is_dir()] == ["global_step_2"]


def test_a_later_run_in_the_folder_does_not_rewrite_what_is_kept(tmp_path: Path) -> None:
    """It starts before the best step: until it has a best of its own, record and weights are the earlier run's."""
    Run(tmp_path).step(1, 0.8)
    weights = tmp_path / "global_step_1" / "actor" / "model_world_size_1_rank_0.pt"
    weights.write_text("weights of the first run")  # the kept file is the same one
    again = Run(tmp_path, resumed=0)
    again.best.before_save(1)
    weights.parent.mkdir(parents=True)
    weights.write_text("weights of the second run")
    assert again.weights == "weights of the first run"
    assert again.record["value"] == 0.8


def test_it_takes_no_space_of_its_own_while_verl_keeps_it_too(tmp_path: Path) -> None:
    Run(tmp_path).step(1, 0.5)
    inodes = {path.stat().st_ino for path in tmp_path.rglob("model_*.pt")}
    assert len(inodes) == 1


def test_links_that_the_file_system_refuses_become_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: str) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    run = Run(tmp_path)
    run.step(1, 0.5)
    assert run.weights == "weights of step 1"


def test_a_step_that_was_not_saved_does_not_compete(tmp_path: Path) -> None:
    (tmp_path / "global_step_9" / "actor").mkdir(parents=True)  # of an earlier run
    run = Run(tmp_path)
    run.step(9, 0.9, saved=False)
    assert not (tmp_path / "best_checkpoint.json").exists()
    run.step(1, 0.5)
    assert run.record["global_step"] == 1


def test_a_resumed_run_has_to_beat_what_was_there(tmp_path: Path) -> None:
    Run(tmp_path).step(3, 0.6)
    resumed = Run(tmp_path, resumed=3)
    resumed.step(4, 0.5)
    assert (resumed.record["global_step"], resumed.weights) == (3, "weights of step 3")
    resumed.step(5, 0.8)
    assert (resumed.record["global_step"], resumed.weights) == (5, "weights of step 5")


@pytest.mark.parametrize("start", [{"resumed": 2}, {"resumed": 3, "metric": "val-core/toy/id/group_acc"}])
def test_a_later_step_and_another_metric_are_no_rivals(tmp_path: Path, start: dict) -> None:
    """A run that starts again from before the best step, or looks at another metric, chooses anew."""
    Run(tmp_path).step(3, 0.6)
    again = Run(tmp_path, **start)
    again.step(4, 0.1)
    assert again.record["value"] == 0.1


def test_group_accuracy_is_that_of_the_id_splits() -> None:
    names = ("val-core/a/id/group_acc", "val-core/b/id/group_acc", "val-core/a/ood/group_acc", "val-core/a/id/acc")
    metrics = dict(zip(names, (0.2, 0.4, 0.9, 1.0), strict=True))
    assert metric_value("group_acc", metrics) == pytest.approx(0.3)
    assert metric_value("group_acc", {names[2]: 0.9}) == 0.9
    assert metric_value(names[3], metrics) == 1.0
    with pytest.raises(ConfigError, match=r"best_metric=val-core/a/id/accc: .*\(did you mean 'val-core/a/id/acc'"):
        metric_value("val-core/a/id/accc", metrics)


def test_a_validation_without_the_value_changes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step(1, float("nan"))
    run.best.consider(1, {})
    assert not (tmp_path / "best_checkpoint.json").exists()
