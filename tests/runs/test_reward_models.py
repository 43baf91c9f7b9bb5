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
import torch
from transformers import PreTrainedModel, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from reward_fns.discriminative import CONVERSATION
from tests.rewards.forward_pass import ForwardPass
from tests.rewards.support import score
from tests.runs.launch import KWARGS, SMALL, Run, first_intents, main_ppo
from verl_air.playground.language import build_tokenizer
from verl_air.playground.model import build_model
from verl_air.rewards import FormatRule

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.exhaustive, pytest.mark.timeout(1500)]

TEMPLATE = "judge the reply . request : {request} . reply : {response} . verdict ?"
WORDS = ("Right", "Wrong")
THRESHOLD = 2.0  # nats; near the middle of what this judge gives
WRONG_ANCHOR = -0.75  # not the judge's -1.0, so that it shows who scored a row
STEPS = (
    "trainer.total_training_steps=2",
    "trainer.test_freq=2",
    "trainer.save_freq=-1",
    "trainer.val_before_train=False",
)
ANCHORS = f"{KWARGS}.options.multiple_choice={{wrong: {WRONG_ANCHOR}}}"
COLOCATED = ("reward.reward_model.enable_resource_pool=False",)
Judged = Callable[[Mapping[str, str]], float]


def save_model(folder: Path, kind: type[PreTrainedModel], **settings: Any) -> Path:
    """A model with the playground's vocabulary: random, but decided enough that its verdicts differ."""
    tokenizer = build_tokenizer()
    config = build_model(tokenizer, seed=5).config
    config.update({"initializer_range": 0.2, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        kind(config).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def launch(folder: Path, playground: Path, model: Path, *overrides: str) -> Run:
    held_out = first_intents(playground / "id.parquet", folder, 3)
    files = (f"data.val_files=[{held_out}]", f"reward.reward_model.model_path={model}")
    return main_ppo(folder, playground, *SMALL, *STEPS, f"+{ANCHORS}", *files, *overrides)


def check_rewards(rows: Iterable[Mapping[str, Any]], expected: Judged, tolerance: float) -> None:
    """Every row was scored: an open one as the model says, an anchor by the rule."""
    values, format_rule = set(), FormatRule()
    for row in rows:
        answer, judged = format_rule.read(row["output"], "playground")
        if judged is None:  # an unfinished thought: nobody is asked
            task = WRONG_ANCHOR if row["role"] == "anchor" else -1.0
        elif row["role"] == "anchor":
            task = score("multiple_choice", row["output"], row["gts"], dict(row), wrong=WRONG_ANCHOR)["task_reward"]
        else:
            task = expected({**json.loads(row["extras"]), "response": row["output"]})
            values.add(round(task, 3))
        assert row["abstained"] == 0.0
        assert row["task_reward"] == pytest.approx(task, abs=tolerance)
        assert row["score"] == pytest.approx(task + (-1.0 if answer is None else 1.25), abs=1e-5 + tolerance)
        assert row["acc"] == float(task > 0.125)  # the middle of the judge's range, [-1, 1.25]
    assert len(values) > 1, "the model must judge some responses differently, or this test would show nothing"


def check_run(run: Run, expected: Judged, tolerance: float) -> None:
    """Training, and validation after its last step."""
    check_rewards([row for step in (1, 2) for row in run.rollouts(step)], expected, tolerance)
    check_rewards(run.validation(2), expected, tolerance)
    metrics = run.metrics()[2]
    for name in ("acc", "group_acc", "anchor_acc", "open_acc"):
        assert math.isfinite(metrics[f"val-core/playground/id/{name}"]), name
    assert metrics["val-core/playground/id/abstain_rate"] == 0.0


def test_a_judge_colocated_with_the_policy(playground_files: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "judge", Qwen3ForCausalLM)
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

    check_run(run, verdict, 0.0)


@pytest.mark.parametrize("place", [COLOCATED, ()], ids=["colocated", "own_pool"])
def test_a_discriminative_model(playground_files: Path, tmp_path: Path, place: tuple[str, ...]) -> None:
    folder = save_model(tmp_path / "classifier", Qwen3ForSequenceClassification, num_labels=1)
    routes = "{playground/open/train: discriminative, playground/open: discriminative}"
    run = launch(tmp_path, playground_files, folder, *place, f"{KWARGS}.routes={routes}")
    classifier = ForwardPass(folder)

    def graded(fields: Mapping[str, Any]) -> float:
        return -1.0 + 2.25 / (1.0 + math.exp(-classifier.outputs(CONVERSATION, fields)[-1]))

    check_run(run, graded, 1e-4)
