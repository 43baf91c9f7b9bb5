"""Two real steps on each domain's file, built from the public sets, with a tiny policy that reads real text."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from tests.data.support import SHARED, needs_shared
from tests.rewards.tiny_judge import make_models
from tests.runs.launch import KWARGS, NO_JUDGE, NO_VALIDATION, SMALL, main_ppo
from verl_air.cli import main

pytestmark = [needs_shared, pytest.mark.slow, pytest.mark.verl_run, pytest.mark.timeout(1500)]

DOMAINS = {  # source, reward of open rows
    "safety": ("advbench/harmful_behaviors.csv", "safety_judge"),
    "moral": ("moralchoice/moralchoice_low_ambiguity.csv", "moral_judge"),
    "math": ("gsm8k/test.jsonl", "math"),
}
PROMPT, RESPONSE = 1000, 16


@pytest.mark.exhaustive
@pytest.mark.parametrize("domain", DOMAINS)
def test_two_steps(domain: str, playground_files: Path, tmp_path: Path) -> None:
    source, reward = DOMAINS[domain]
    assert main(["data", domain, "--source", str(SHARED / source), "--out", str(tmp_path / "data")]) == 0
    policy, _ = make_models(tmp_path)

    run = main_ppo(
        tmp_path / "run",
        playground_files,
        *SMALL,
        *(NO_JUDGE if domain == "math" else ()),
        "trainer.total_training_steps=2",
        *NO_VALIDATION,
        "trainer.save_freq=-1",
        f"data.train_files=[{tmp_path / 'data' / 'train.parquet'}]",
        f"data.val_files=[{tmp_path / 'data' / 'id.parquet'}]",
        f"data.max_prompt_length={PROMPT}",
        "data.filter_overlong_prompts=True",
        f"actor_rollout_ref.model.path={policy}",
        f"actor_rollout_ref.rollout.prompt_length={PROMPT}",
        f"actor_rollout_ref.rollout.max_model_len={PROMPT + RESPONSE}",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        f"reward.reward_model.model_path={policy}",
        "reward.reward_model.rollout.max_model_len=2048",
        "reward.reward_model.rollout.prompt_length=2044",
        f"{KWARGS}.modules=[]",
        f"{KWARGS}.options={{}}",
        f"~{KWARGS}.routes",
        f"+{KWARGS}.routes={{{domain}/anchor:multiple_choice,{domain}/open:{reward}}}",
    )
    assert sorted(run.metrics()) == [1, 2]
    for step in (1, 2):
        rows = run.rollouts(step)
        assert {row["domain"] for row in rows} == {domain}
        assert Counter(row["role"] for row in rows) == {"anchor": 6, "open": 18}
        assert all(math.isfinite(row["score"]) and row["abstained"] == 0.0 for row in rows)
        assert run.metrics()[step]["air/groups/complete"] == 2
        assert run.metrics()[step]["training/rollout_probs_diff_max"] < 1e-3
    if domain != "math":  # a judge with random weights still says something about each of them
        assert all(row["task_reward"] in (-1.0, 1.25, 2.5) for row in run.rollouts(1) if row["role"] == "open")
