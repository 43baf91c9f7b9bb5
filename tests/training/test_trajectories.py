"""From what TransferQueue holds to arrays, weights and metrics, on hand-made batches with every kind of row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tensordict.tensorclass import NonTensorData, NonTensorStack

from verl_air.config import AirConfig
from verl_air.errors import DataError, RewardError
from verl_air.objective import trajectory_weights
from verl_air.training.batch import AbstentionGuard
from verl_air.training.rows import new_group_uids
from verl_air.training.metrics import training_metrics
from verl_air.training.batch import Trajectories, read_trajectories
from verl_air.training.batch import auxiliary_reward, loss_weights

EOS = 7
K = 3


def batch(groups: list[list[list[float]]], *, tasks: bool = True, pad: int = 0, domain: str = "toy") -> Trajectories:
    """Rewards by group, prompt and completion; the first prompt of a group is its anchor. NaN: abstained."""
    keys, rewards, infos, extra = [], [], [], []
    for group in groups:
        for position, (uid, completions) in enumerate(zip(new_group_uids(len(group)), group, strict=True)):
            for session, reward in enumerate(completions):
                keys.append(f"{uid}_{session}_0")
                rewards.append(reward)
                abstained = float(np.isnan(reward))
                info: dict[str, Any] = {"acc": float(reward > 0), "abstained": abstained}
                if tasks:
                    info |= {"task_reward": reward - 1.25, "task_min": -1.0, "task_max": 1.25}
                    info |= {"score_min": -2.0, "score_max": 2.5}
                infos.append(info)
                extra.append({"role": "open" if position else "anchor", "intent_id": uid[:8], "domain": domain})
    for row in range(pad):
        keys.append(f"pad123_{row}_0")
        rewards.append(0.0)
        infos.append(infos[0])
        extra.append(extra[0])
    tags = [{"is_padding": key.startswith("pad")} for key in keys]
    lengths = [1 + row % 3 for row in range(len(keys))]
    data = {
        "rm_scores": nested([score_at_end(reward, length) for reward, length in zip(rewards, lengths, strict=True)]),
        "responses": nested([torch.tensor([5] * (length - 1) + [EOS]) for length in lengths]),
        "extra_info": stack(extra),
        "extra_fields": stack([{"reward_extra_info": info} for info in infos]),
    }
    return read_trajectories(keys, tags, data, max_response_length=3, eos_token_ids=frozenset({EOS}))


def score_at_end(reward: float, length: int) -> torch.Tensor:
    scores = torch.zeros(length)
    scores[-1] = reward
    return scores


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def stack(items: list[Any]) -> NonTensorStack:
    return NonTensorStack.from_list([NonTensorData(item) for item in items])


TWO_GROUPS = [[[2.5, 2.5, 0.25], [0.25, 0.25, 2.5]], [[2.5, 2.5, 2.5], [0.25, -2.0, 0.25]]]


def test_weights_are_those_of_the_objective_scaled_to_the_batch() -> None:
    t = batch(TWO_GROUPS, pad=4)
    valid_N = ~t.padding_N
    got = loss_weights(t, valid_N, AirConfig())
    reward = torch.tensor([r for group in TWO_GROUPS for prompt in group for r in prompt])
    prompt = torch.arange(4).repeat_interleave(K)
    want = trajectory_weights(reward, prompt, prompt // 2, prompt % 2 == 0)
    # J_aux averages over the 12 valid rows; the actor divides by all 16.
    np.testing.assert_allclose(got[:12], want.numpy() * 16 / 12, rtol=1e-6)
    assert (got[12:] == 0).all()


def test_normalize_by_open_averages_over_open_rows() -> None:
    t = batch(TWO_GROUPS)
    everything = np.ones(12, dtype=bool)
    by_open = loss_weights(t, everything, AirConfig(normalize_by="open"))
    np.testing.assert_allclose(by_open, 2 * loss_weights(t, everything, AirConfig()), rtol=1e-6)


def test_task_reward_and_unit_scale() -> None:
    t = batch([[[2.5] * K, [0.25] * K]])
    assert set(auxiliary_reward(t, AirConfig())) == {2.5, 0.25}
    assert set(auxiliary_reward(t, AirConfig(aux_reward="task"))) == {1.25, -1.0}
    assert set(auxiliary_reward(t, AirConfig(aux_reward="task", reward_scale="unit"))) == {1.0, -1.0}
    scaled = auxiliary_reward(t, AirConfig(reward_scale="unit"))
    assert scaled.max() == 1.0
    assert scaled.min() == pytest.approx(0.0)


def test_a_reward_function_without_the_needed_column_is_told() -> None:
    t = batch([[[2.5] * K, [0.25] * K]], tasks=False)
    with pytest.raises(RewardError, match=r"air.aux_reward=task needs 'task_reward'"):
        auxiliary_reward(t, AirConfig(aux_reward="task"))
    with pytest.raises(RewardError, match=r"air.reward_scale=unit needs 'score_min'"):
        auxiliary_reward(t, AirConfig(reward_scale="unit"))


def test_abstained_rows_take_no_part() -> None:
    nan = float("nan")
    t = batch([[[2.5] * K, [0.25, nan, 2.5]]])
    assert t.abstained_N.tolist() == [False] * 4 + [True, False]
    valid_N = ~t.abstained_N
    weight_N = loss_weights(t, valid_N, AirConfig(estimator="paper"))
    assert weight_N[4] == 0
    gap = 2.5 - (0.25 + 2.5) / 2
    np.testing.assert_allclose(weight_N[[3, 5]], np.array([gap * 0.25, gap * 2.5]) * 6 / 5, rtol=1e-6)
    metrics = training_metrics(t, valid_N, 0)
    assert metrics["air/judge/abstain_rate"] == pytest.approx(1 / 3)
    assert metrics["air/open_reward/mean"] == pytest.approx(1.375)
    assert metrics["air/gap/mean"] == pytest.approx(gap)


def test_an_infinite_reward_counts_as_abstained() -> None:
    assert batch([[[2.5] * K, [0.25, float("inf"), 2.5]]]).abstained_N.sum() == 1


def test_a_group_that_lost_a_completion_is_incomplete() -> None:
    t = batch([[[2.5] * K, [0.25] * 2], [[2.5] * K, [0.25] * K]], pad=1)
    assert t.incomplete_groups_N(group_size=2, completions=K).tolist() == [True] * 5 + [False] * 7


def test_truncation_is_full_length_without_an_end() -> None:
    keys = [f"{uid}_0_0" for uid in new_group_uids(3)]
    data = {
        "rm_scores": nested([torch.zeros(n) for n in (3, 3, 2)]),
        "responses": nested([torch.tensor(r) for r in ([5, 5, 5], [5, 5, EOS], [5, 5])]),
        "extra_info": stack([{"role": "anchor", "intent_id": "a"}] * 3),
    }
    t = read_trajectories(keys, [{}] * 3, data, max_response_length=3, eos_token_ids=frozenset({EOS}))
    assert t.truncated_N.tolist() == [True, False, False]
    assert np.isnan(t.info_N["acc"]).all()


def test_several_outputs_of_a_session_share_the_weight_of_the_final_one() -> None:
    t = batch([[[2.5] * K, [0.25, -2.0, 0.25]]])
    first = t.keys[3].rsplit("_", 1)[0]
    keys = [*t.keys, f"{first}_1"]
    assert keys[-1] != t.keys[3]
    rows = [*range(6), 3]
    data = {
        "rm_scores": nested([torch.tensor([t.reward_N[row]]) for row in rows]),
        "responses": nested([torch.tensor([EOS])] * 7),
        "extra_info": stack([{"role": t.role_N[row], "intent_id": "a"} for row in rows]),
    }
    more = read_trajectories(keys, [{}] * 7, data, max_response_length=3, eos_token_ids=frozenset({EOS}))
    assert more.final_N.tolist() == [True] * 3 + [False, True, True, True]
    weight_N = loss_weights(more, np.ones(7, dtype=bool), AirConfig())
    assert weight_N[3] == weight_N[6]
    np.testing.assert_allclose(weight_N[:6], loss_weights(t, np.ones(6, dtype=bool), AirConfig()) * 7 / 6, rtol=1e-6)


def test_a_row_without_identity_is_named() -> None:
    data = {
        "rm_scores": nested([torch.zeros(1)]),
        "responses": nested([torch.tensor([EOS])]),
        "extra_info": stack([{"index": 3}]),
    }
    with pytest.raises(DataError, match="extra_info lacks role or intent_id; it has index"):
        read_trajectories(["a-0_0_0"], [{}], data, max_response_length=3, eos_token_ids=frozenset({EOS}))


def test_metrics_count_what_is_there() -> None:
    metrics = training_metrics(batch(TWO_GROUPS, pad=2), ~batch(TWO_GROUPS, pad=2).padding_N, dropped_groups=1)
    assert metrics["air/groups/complete"] == 2
    assert metrics["air/groups/dropped"] == 1
    assert metrics["air/anchor_reward/mean"] == pytest.approx((2.5 * 5 + 0.25) / 6)
    assert metrics["air/zero_std_rate"] == pytest.approx(1 / 4)
    gaps = [(2.5 * 2 + 0.25) / 3 - (0.25 * 2 + 2.5) / 3, 2.5 - (0.25 - 2.0 + 0.25) / 3]
    assert metrics["air/gap/mean"] == pytest.approx(np.mean(gaps))
    assert metrics["air/gap_se"] == pytest.approx(np.std(gaps, ddof=1) / np.sqrt(2))


def test_nothing_valid_leaves_means_out_instead_of_zero() -> None:
    t = batch(TWO_GROUPS)
    metrics = training_metrics(t, np.zeros(12, dtype=bool), dropped_groups=2)
    assert metrics["air/groups/complete"] == 0
    assert "air/gap/mean" not in metrics
    assert "air/open_reward/mean" not in metrics


def test_the_run_stops_when_the_judge_fails_too_often() -> None:
    nan = float("nan")
    guard = AbstentionGuard(max_rate=0.5, window=2)
    healthy, failing = batch([[[2.5] * K, [0.25] * K]]), batch([[[2.5] * K, [nan] * K]])
    guard.update(healthy)
    guard.update(failing)  # 3 of 6
    with pytest.raises(RewardError, match=r"abstained on 6 of 6 open rows \(100%\) in the last 2 step"):
        guard.update(failing)
