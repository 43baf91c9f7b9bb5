"""Updates with old rollouts are warned of, and corrections that cannot work are refused."""

from __future__ import annotations

import pytest

from tests.training.test_preflight import ACTOR, Compose
from verl_air.errors import ConfigError
from verl_air.training.preflight import check_settings

ASYNC = "trainer.v1.trainer_mode=air_colocate_async"
RATIO, REUSE = "air.importance=ratio", "air.old_log_probs=reuse"
HALVES = [f"{ACTOR}.ppo_mini_batch_size=24", f"{ACTOR}.ppo_micro_batch_size_per_gpu=72"]
CORRECTION = "algorithm.rollout_correction"
TOKEN, BYPASS = f"{CORRECTION}.rollout_is=token", f"{CORRECTION}.bypass_mode=true"
NO_LOG_PROBS = "actor_rollout_ref.rollout.calculate_log_probs=false"
RAW = ["actor_rollout_ref.rollout.logprobs_mode=raw_logprobs", "actor_rollout_ref.rollout.temperature=0.7"]


@pytest.mark.parametrize("overrides", [[f"{ACTOR}.ppo_epochs=2"], HALVES, [ASYNC]], ids=["epochs", "halves", "async"])
def test_off_policy_updates_without_importance_are_warned_of(compose: Compose, overrides: list[str]) -> None:
    with pytest.warns(UserWarning, match="air.importance=ratio"):
        check_settings(compose(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([RATIO, ASYNC], r"corrects nothing. Set algorithm.rollout_correction.rollout_is=sequence .*bypass_mode=True"),
        ([RATIO, ASYNC, TOKEN, f"{CORRECTION}.rollout_is_threshold=null"], "corrects nothing"),
        ([RATIO, ASYNC, TOKEN, NO_LOG_PROBS], "needs the rollout's log-probs: set .*calculate_log_probs=True"),
        ([RATIO, ASYNC, BYPASS, NO_LOG_PROBS], "needs the rollout's log-probs: set .*calculate_log_probs=True"),
        ([RATIO, ASYNC, TOKEN, *RAW], "Set it to processed_logprobs"),
        ([RATIO, ASYNC, BYPASS, f"{ACTOR}.policy_loss.loss_mode=bypass_mode"], "loss_mode=bypass_mode corrects inside"),
        ([RATIO, ASYNC, BYPASS, TOKEN], "ignores rollout_is and rollout_rs"),
        ([ASYNC, TOKEN], "rollout_is corrects the policy loss alone .* Set air.importance=ratio"),
        ([ASYNC, BYPASS], "bypass_mode corrects the policy loss alone .* Set air.importance=ratio"),
        ([REUSE, ASYNC], "the recipe has .*air_colocate_async. Set air.old_log_probs=recompute"),
        ([REUSE, f"{ACTOR}.ppo_epochs=2"], "ppo_epochs=2"),
        ([REUSE, *HALVES], "ppo_mini_batch_size=24 of 48 prompts"),
        ([REUSE, "algorithm.use_kl_in_reward=true"], "use_kl_in_reward=True"),
        ([REUSE, RATIO, BYPASS], "bypass_mode=True, which takes the rollout's"),
        ([REUSE, RATIO, TOKEN, f"{CORRECTION}.rollout_is_batch_normalize=true"], "needs the whole batch"),
        ([REUSE, f"{ACTOR}.router_replay.mode=R2"], "router_replay.mode=R2"),
    ],
)
def test_corrections_that_cannot_work_are_refused(compose: Compose, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(compose(*overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        *([RATIO, ASYNC, TOKEN], [RATIO, ASYNC, BYPASS], [RATIO, *HALVES], [RATIO, TOKEN], [REUSE, RATIO, TOKEN]),
        [REUSE],
        [ASYNC, TOKEN, "air.coef=0"],  # without a term of ours nothing of ours can disagree
    ],
)
def test_corrections_that_work_pass(compose: Compose, overrides: list[str]) -> None:
    assert check_settings(compose(*overrides)) is not None
