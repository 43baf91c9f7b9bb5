"""The trainer's real methods on one validation: what becomes a curve, and what is stored with the rollouts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from tests.conftest import ROOT
from tests.training.support import stack
from verl_air.config import AirConfig
from verl_air.data.schema import make_row, write_rows
from verl_air.rewards import REWARD_KEYS
from verl_air.training import trainer as module
from verl_air.training.best_checkpoint import BestCheckpoint
from verl_air.training.rows import RowIdentities, ValidationIntents
from verl_air.training.trainer import AirTrainerSync

RANGES = ("score_min", "score_max", "task_min", "task_max")
NAN = float("nan")
INTENTS, COMPLETIONS = 4, 2


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """Four intents of one anchor and one open row, in a data file."""
    found = [
        make_row(
            prompt=f"{role} {z}",
            ground_truth="A",
            intent_id=f"z{z}",
            role=role,
            context=role,
            domain="toy",
            split="id",
            index=2 * z + place,
        )
        for z in range(INTENTS)
        for place, role in enumerate(("anchor", "open"))
    ]
    write_rows(tmp_path / "id.parquet", found)
    return [dict(row) for row in found]


@pytest.fixture
def trainer(tmp_path: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> AirTrainerSync:
    """Without a constructor; TransferQueue hands out the rows."""
    trainer: AirTrainerSync = object.__new__(AirTrainerSync)
    config = {
        "actor_rollout_ref": {"rollout": {"val_kwargs": {"n": COMPLETIONS}}},
        "trainer": {"rollout_data_dir": None},
    }
    vars(trainer).update(
        air=AirConfig(),
        config=OmegaConf.create(config),
        global_steps=1,
        training_rows=RowIdentities(),
        validation_rows=RowIdentities(),
        validation_intents=ValidationIntents.read([tmp_path / "id.parquet"]),
        best_checkpoint=BestCheckpoint(tmp_path / "checkpoints", "group_acc", resumed=0),
    )

    def read(batch: Any, *fields: str) -> TensorDict:
        infos = [rows[int(key.split("_")[0][1:])]["extra_info"] for key in batch.keys]
        return TensorDict({"extra_info": stack(infos)}, batch_size=len(infos))

    monkeypatch.setattr(module.queue_io, "read", read)
    return trainer


def validate(trainer: AirTrainerSync, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of the intents one is right, one abstained once, one lost a session, and one lost all of its open row's."""
    keys = [f"u{row}_{session}_0" for row in range(2 * INTENTS) for session in range(COMPLETIONS)]
    keys = [key for key in keys if key != "u5_1_0" and not key.startswith("u7_")]
    trainer._remember_validation_rows(SimpleNamespace(keys=keys))
    uids = [key.split("_")[0] for key in keys]
    infos: dict[str, list[Any]] = {name: [1.0] * len(keys) for name in REWARD_KEYS} | {"reward": [1.0] * len(keys)}
    for name in ("acc", "score", "task_reward", "reward"):
        infos[name][keys.index("u3_0_0")] = NAN
    infos["format_reward"] = [NAN] * len(keys)  # the style `plain` has none
    sources = [rows[0]["data_source"]] * len(keys)
    expected = {("toy/id", f"u{row}"): COMPLETIONS for row in range(2 * INTENTS)}
    return trainer._val_metrics_update(sources, uids, infos, [1] * len(keys), expected_acc_counts=expected)


def test_constants_are_no_curves_and_nothing_is_nan(trainer: AirTrainerSync, rows: list[dict[str, Any]]) -> None:
    metrics = validate(trainer, rows)
    assert any(name.startswith("val-aux/toy/id/format_ok/") for name in metrics)
    assert not [name for name in metrics if any(f"/{left_out}/" in name for left_out in (*RANGES, "format_reward"))]
    assert not [name for name, value in metrics.items() if value != value]


def test_ours_and_verls_accuracy_differ_by_the_stated_rule(trainer: AirTrainerSync, rows: list[dict[str, Any]]) -> None:
    """Four of sixteen completions have no verdict. verl counts them as wrong, in its mean over prompts; we leave them
    out of ``acc``, and their three meta-groups are not right in ``group_acc``.
    """
    metrics = validate(trainer, rows)
    assert metrics["val-core/toy/id/acc/mean@2"] == pytest.approx(12 / 16)
    assert metrics["val-core/toy/id/acc"] == metrics["val-aux/toy/id/acc_success_only/mean@2"] == 1.0
    assert metrics["val-core/toy/id/group_acc"] == pytest.approx(1 / 4)
    assert metrics["val-core/toy/id/incomplete"] == pytest.approx(3 / 4)


def test_the_page_lists_every_metric_of_validation(trainer: AirTrainerSync, rows: list[dict[str, Any]]) -> None:
    page = (ROOT / "docs" / "how_it_works.md").read_text()
    for name in validate(trainer, rows):
        listed = re.sub("@.*", "@K", name.replace("toy/id", "<domain>/<split>"))
        listed = re.sub(
            r"^val-aux/<domain>/<split>/(?!acc_success_only).*/mean@K",
            "val-aux/<domain>/<split>/<column>/mean@K",
            listed,
        )
        if "@" in listed and "/mean@" not in listed:  # of the same quantity, in the same row of the table
            listed = listed.rpartition("/")[2]
        assert f"`{listed}`" in page, f"docs/how_it_works.md does not list {name}: `{listed}`"


def test_a_step_that_is_saved_and_then_validated_becomes_the_best(
    trainer: AirTrainerSync, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "checkpoints"

    def save(self: PPOTrainer) -> None:
        (checkpoints / f"global_step_{self.global_steps}" / "actor").mkdir(parents=True)

    monkeypatch.setattr(PPOTrainer, "_save_checkpoint", save)
    validate(trainer, rows)
    assert not (checkpoints / "best").exists()
    trainer._save_checkpoint()
    validate(trainer, rows)
    record = json.loads((checkpoints / "best_checkpoint.json").read_text())
    assert record == {"global_step": 1, "metric": "group_acc", "value": 0.25, "mode": "max"}
    assert (checkpoints / "best" / "global_step_1" / "actor").is_dir()


def test_stored_rollouts_say_how_much_there_should_be(
    trainer: AirTrainerSync, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: dict[str, list[Any]] = {}
    monkeypatch.setattr(PPOTrainer, "_dump_generations", lambda self, *args: stored.update(args[4]))
    keys = ["u0_0_0", "u7_1_0"]
    trainer._remember_validation_rows(SimpleNamespace(keys=keys))
    trainer._dump_generations([], [], [], [], {"uid": keys, "score_min": [0.0, 0.0]}, "validation")
    assert stored["group_size"] == [2 * COMPLETIONS] * 2
    assert stored["split_intents"] == [INTENTS] * 2
    assert stored["intent_id"] == ["z0", "z3"]
    assert stored["score_min"] == [0.0, 0.0]


def test_a_row_that_the_files_do_not_hold_has_no_sizes(trainer: AirTrainerSync) -> None:
    assert trainer.validation_intents.sizes({"intent_id": "another", "domain": "toy", "split": "id"}, 2) == {}
