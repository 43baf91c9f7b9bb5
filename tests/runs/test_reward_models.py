"""The reward models that verl serves in main_ppo, judged again here: colocated and in a pool of their own.

A judge in its own pool is the quickstart recipe's, tests/runs/test_quickstart_recipe.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reward_fns.discriminative import CONVERSATION
from tests.rewards.forward_pass import ForwardPass
from tests.rewards.support import score
from tests.runs.data import first_intents
from tests.runs.launch import Run, main_ppo
from tests.runs.reward_models import save_classifier, save_judge
from verl_air.rewards import FormatRule

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.exhaustive, pytest.mark.timeout(1500)]

TEMPLATE = "judge the reply . request : {request} . reply : {response} . verdict ?"
WORDS = ("Right", "Wrong")
THRESHOLD = 2.0  # nats; near the middle of what this judge gives
WRONG_ANCHOR = -0.75  # not the judge's -1.0, so that it shows who scored a row
KWARGS = "reward.custom_reward_function.reward_kwargs"
SMALL = (
    "trainer.total_training_steps=2",
    "trainer.test_freq=2",
    "trainer.save_freq=-1",
    "trainer.val_before_train=False",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=24",
)
ANCHORS = f"{KWARGS}.options.multiple_choice={{wrong: {WRONG_ANCHOR}}}"
COLOCATED = ("reward.reward_model.enable_resource_pool=False",)
Judged = Callable[[Mapping[str, str]], float]


def launch(folder: Path, playground: Path, model: Path, *overrides: str) -> Run:
    held_out = first_intents(playground / "id.parquet", folder, 3)
    run = main_ppo(
        folder,
        playground,
        *SMALL,
        f"+{ANCHORS}",
        f"data.val_files=[{held_out}]",
        f"reward.reward_model.model_path={model}",
        *overrides,
    )
    assert run.status == 0, run.log[-4000:]
    return run


def check_rewards(rows: Iterable[Mapping[str, Any]], expected: Judged, tolerance: float) -> None:
    """Every row was scored: an open one as the model says, an anchor by the rule."""
    values, format_rule = set(), FormatRule()
    for row in rows:
        if row["role"] == "anchor":
            task = score("multiple_choice", row["output"], row["gts"], dict(row), wrong=WRONG_ANCHOR)["task_reward"]
        else:
            task = expected({**json.loads(row["extras"]), "response": row["output"]})
            values.add(round(task, 3))
        formatted = format_rule.parse(row["output"], "playground") is not None
        assert row["abstained"] == 0.0
        assert row["task_reward"] == pytest.approx(task, abs=tolerance)
        assert row["score"] == pytest.approx(task + (1.25 if formatted else -1.0), abs=1e-5 + tolerance)
        assert row["acc"] == float(task > 0.125)  # the middle of the judge's range, [-1, 1.25]
    assert len(values) > 1, "the model must tell some responses apart, or this test would show nothing"


def training_rows(run: Run) -> list[dict[str, Any]]:
    return [row for step in (1, 2) for row in run.rollouts(step)]


def validation_rows(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "validation" / "2.jsonl").read_text().splitlines()]


def check_validation(run: Run) -> None:
    metrics = run.metrics()[2]
    for name in ("acc", "group_acc", "anchor_acc", "open_acc"):
        assert math.isfinite(metrics[f"val-core/playground/id/{name}"]), name
    assert metrics["val-core/playground/id/abstain_rate"] == 0.0


def test_a_judge_colocated_with_the_policy(playground_files: Path, tmp_path: Path) -> None:
    folder = save_judge(tmp_path / "judge")
    options = f"{KWARGS}.options.verdict_judge"
    run = launch(
        tmp_path,
        playground_files,
        folder,
        *COLOCATED,
        f"{options}.template='{TEMPLATE}'",
        f"+{options}.threshold={THRESHOLD}",
        f"{KWARGS}.routes={{playground/open: verdict_judge}}",  # in validation too
    )
    judge = ForwardPass(folder)

    def verdict(fields: Mapping[str, Any]) -> float:
        return 1.25 if judge.log_odds(TEMPLATE, *WORDS, fields) > THRESHOLD else -1.0

    check_rewards(training_rows(run), verdict, 0.0)
    check_rewards(validation_rows(run), verdict, 0.0)
    check_validation(run)


@pytest.mark.parametrize("place", [COLOCATED, ()], ids=["colocated", "own_pool"])
def test_a_discriminative_model(playground_files: Path, tmp_path: Path, place: tuple[str, ...]) -> None:
    folder = save_classifier(tmp_path / "classifier")
    routes = "{playground/open/train: discriminative, playground/open: discriminative}"
    run = launch(tmp_path, playground_files, folder, *place, f"{KWARGS}.routes={routes}")
    classifier = ForwardPass(folder)

    def graded(fields: Mapping[str, Any]) -> float:
        return -1.0 + 2.25 / (1.0 + math.exp(-classifier.outputs(CONVERSATION, fields)[-1]))

    check_rewards(training_rows(run), graded, 1e-4)
    check_rewards(validation_rows(run), graded, 1e-4)
    check_validation(run)
