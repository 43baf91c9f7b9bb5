"""From what TransferQueue holds to arrays and weights, and what is written back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from tests.training.support import EOS, NAN, TWO_GROUPS, K, batch, read, stack
from verl_air.config import AirConfig
from verl_air.errors import DataError, RewardError
from verl_air.objective import trajectory_weights
from verl_air.training import queue_io
from verl_air.training.batch import auxiliary_reward, end_token_ids, loss_weights
from verl_air.training.rows import RowIdentities, group_of, new_group_uids, session_of, uid_of, with_group_sizes


def test_a_key_says_its_prompt_session_and_group() -> None:
    first, second = new_group_uids(2)
    assert "_" not in first  # verl splits its keys there
    assert group_of(first) == group_of(second) != group_of(new_group_uids(1)[0])
    assert (uid_of(f"{second}_2_0"), session_of(f"{second}_2_0")) == (second, f"{second}_2")


def test_rows_are_remembered_with_notes_until_cleared() -> None:
    rows = RowIdentities()
    rows.add(["a-0_0_0", "a-0_1_0"], stack([{"role": "open", "index": 4}] * 2))
    rows.note(["a-0_1_0"], air_weight=[0.5])
    columns = rows.columns(["a-0_0_0", "a-0_1_0", "b-0_0_0"])
    assert (columns["role"], columns["air_weight"]) == (["open", "open", None], [None, 0.5, None])
    rows.clear()
    assert rows.of(["a-0"]) == [{}]


def test_weights_are_those_of_the_objective_scaled_to_the_batch() -> None:
    t = batch(TWO_GROUPS, pad=4)
    got = loss_weights(t, ~t.padding_N, AirConfig())
    reward = torch.tensor([r for group in TWO_GROUPS for prompt in group for r in prompt])
    prompt = torch.arange(4).repeat_interleave(K)
    want = trajectory_weights(reward, prompt, prompt // 2, prompt % 2 == 0)
    # J_aux averages over the 12 valid rows; the actor divides by all 16.
    np.testing.assert_allclose(got[:12], want.numpy() * 16 / 12, rtol=1e-6)
    assert (got[12:] == 0).all()


def test_normalize_by_open_averages_over_open_rows() -> None:
    t, everything_N = batch(TWO_GROUPS), np.ones(12, dtype=bool)
    by_open = loss_weights(t, everything_N, AirConfig(normalize_by="open"))
    np.testing.assert_allclose(by_open, 2 * loss_weights(t, everything_N, AirConfig()), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "best", "worst"),
    [
        ({}, 2.5, 0.25),
        ({"aux_reward": "task"}, 1.25, -1.0),
        ({"aux_reward": "task", "reward_scale": "unit"}, 1.0, -1.0),
        ({"reward_scale": "unit"}, 1.0, 0.0),
    ],
)
def test_task_reward_and_unit_scale(options: dict[str, Any], best: float, worst: float) -> None:
    reward_N = auxiliary_reward(batch([[[2.5] * K, [0.25] * K]]), AirConfig(**options))
    assert reward_N.tolist() == pytest.approx([best] * K + [worst] * K)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"aux_reward": "task"}, "air.aux_reward=task needs 'task_reward'"),
        ({"reward_scale": "unit"}, "air.reward_scale=unit needs 'score_min'"),
    ],
)
def test_a_missing_reward_column_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(RewardError, match=says):
        auxiliary_reward(batch([[[2.5] * K, [0.25] * K]], tasks=False), AirConfig(**options))


@pytest.mark.parametrize(
    ("anchor", "first", "second", "weights"),
    [
        # Accuracies 2/3, 1/3 and 1; a right completion is +(1 - mean of the other two) times the others' accuracies.
        ([1, 1, -1], [1, -1, -1], [1, 1, 1], [1 / 6, 1 / 6, -1 / 3, 2 / 3, -1 / 3, -1 / 3, 0, 0, 0]),
        ([1, 1, -1], [1, NAN, -1], [1, 1, 1], [1 / 4, 1 / 4, -1 / 2, 2 / 3, 0, -2 / 3, 0, 0, 0]),  # one has no verdict
        ([1, 1, -1], [1, -1, -1], [NAN] * K, [0] * 9),  # a prompt has none: the product is not known
    ],
    ids=["whole", "an abstained row", "an abstained prompt"],
)
def test_group_accuracy_is_trained_from_the_verdicts_of_the_rows(anchor, first, second, weights) -> None:
    t = batch([[[float(reward) for reward in prompt] for prompt in (anchor, first, second)]])
    got = loss_weights(t, ~t.abstained_N, AirConfig(regularizer="group_accuracy"))
    np.testing.assert_allclose(got, np.array(weights) * 9 / (~t.abstained_N).sum(), rtol=1e-6)
    assert (loss_weights(t, np.zeros(9, dtype=bool), AirConfig(regularizer="group_accuracy")) == 0).all()


def test_group_accuracy_without_verdicts_is_refused() -> None:
    t = read(
        ["a-0_0_0", "a-1_0_0"], [0.0] * 2, [[EOS]] * 2, [{"role": r, "intent_id": "a"} for r in ("anchor", "open")]
    )
    with pytest.raises(ValueError, match="the key 'acc', which some row's reward function did not return"):
        loss_weights(t, np.ones(2, dtype=bool), AirConfig(regularizer="group_accuracy"))


def test_abstained_rows_have_no_weight() -> None:
    t = batch([[[2.5] * K, [0.25, NAN, 2.5]]])
    assert t.abstained_N.tolist() == [False] * 4 + [True, False]
    weight_N = loss_weights(t, ~t.abstained_N, AirConfig(estimator="paper"))
    assert weight_N[4] == 0
    gap = 2.5 - (0.25 + 2.5) / 2
    np.testing.assert_allclose(weight_N[[3, 5]], np.array([gap * 0.25, gap * 2.5]) * 6 / 5, rtol=1e-6)


def test_an_infinite_reward_counts_as_abstained() -> None:
    assert batch([[[2.5] * K, [0.25, float("inf"), 2.5]]]).abstained_N.sum() == 1


def test_a_group_that_lost_a_completion_is_incomplete() -> None:
    t = batch([[[2.5] * K, [0.25] * 2], [[2.5] * K, [0.25] * K]], pad=1)
    assert t.incomplete_groups_N(group_size=2, completions=K).tolist() == [True] * 5 + [False] * 7


def test_a_completion_left_alone_is_found() -> None:
    t = batch([[[2.5] * K, [NAN, NAN, 2.5]], [[2.5], [0.25] * K]], pad=1)
    # Not the prompt that was sampled once: verl has no baseline for it either way.
    assert np.flatnonzero(t.lone_N(~t.abstained_N & ~t.padding_N)).tolist() == [5]


def test_truncation_is_full_length_without_an_end() -> None:
    keys = [f"{uid}_0_0" for uid in new_group_uids(3)]
    t = read(keys, [0.0] * 3, [[5, 5, 5], [5, 5, EOS], [5, 5]], [{"role": "anchor", "intent_id": "a"}] * 3)
    assert t.truncated_N.tolist() == [True, False, False]
    assert np.isnan(t.info_N["acc"]).all()


def test_several_outputs_of_a_session_share_the_weight_of_the_final_one() -> None:
    t = batch([[[2.5] * K, [0.25, -2.0, 0.25]]])
    rows = [*range(6), 3]
    keys = [*t.keys, f"{session_of(t.keys[3])}_1"]
    extra = [{"role": t.role_N[row], "intent_id": "a"} for row in rows]
    tasks = [{"task_reward": t.reward_N[row]} for row in range(6) if row != 3]  # the final output alone has a reward
    infos = [*tasks[:3], {}, *tasks[3:], {"task_reward": t.reward_N[3]}]
    more = read(keys, [t.reward_N[row] for row in rows], [[EOS]] * 7, extra, infos)
    assert more.final_N.tolist() == [True] * 3 + [False, True, True, True]
    weight_N = loss_weights(more, np.ones(7, dtype=bool), AirConfig(aux_reward="task"))
    assert weight_N[3] == weight_N[6]
    np.testing.assert_allclose(weight_N[:6], loss_weights(t, np.ones(6, dtype=bool), AirConfig()) * 7 / 6, rtol=1e-6)


def test_a_row_without_identity_is_named() -> None:
    with pytest.raises(DataError, match="trajectory a-0_0_0: extra_info lacks role or intent_id; it has index"):
        read(["a-0_0_0"], [0.0], [[EOS]], [{"index": 3}])


class Queue:
    """TransferQueue for one batch: what is written, call by call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Sequence[str], dict[str, Any]]] = []
        monkeypatch.setattr(queue_io.tq, "kv_batch_put", self.put)

    def put(self, keys: Sequence[str], partition_id: str, fields: Any) -> None:
        assert partition_id == "train"
        self.calls.append((keys, {name: list(fields[name]) for name in fields.keys()}))  # noqa: SIM118


def test_weights_masks_and_cleared_advantages_are_one_call_each_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    written, t = Queue(monkeypatch), batch([[[2.5] * K, [NAN, NAN, 2.5]]])
    meta = SimpleNamespace(keys=t.keys, partition_id="train")
    nothing_N = np.zeros(6, dtype=bool)
    queue_io.mask_rows(meta, t, nothing_N)
    queue_io.clear_advantages(meta, t, nothing_N)
    assert not written.calls

    queue_io.put_weights(meta, t, np.arange(6, dtype=np.float32))
    queue_io.mask_rows(meta, t, t.abstained_N)
    queue_io.clear_advantages(meta, t, t.lone_N(~t.abstained_N))
    (all_keys, weights), (masked_keys, masks), (lone_keys, advantages) = written.calls
    assert (all_keys, masked_keys, lone_keys) == (t.keys, t.keys[3:5], t.keys[5:])
    assert [row.tolist() for row in weights["air_weight"]] == [[0], [1, 1], [2, 2, 2], [3], [4, 4], [5, 5, 5]]
    assert masks["uid"] == [f"masked{key}" for key in masked_keys]
    for name, dtype in (("response_mask", torch.int64), ("loss_mask", torch.int64), ("rm_scores", torch.float32)):
        assert [(row.tolist(), row.dtype) for row in masks[name]] == [([0], dtype), ([0, 0], dtype)]
    assert [row.tolist() for row in advantages["advantages"] + advantages["returns"]] == [[0.0] * 3] * 2


@pytest.mark.parametrize(
    ("configured", "more"), [(None, set()), ([7, 9], {7, 9}), (8, {8})], ids=["no config", "several", "one"]
)
def test_any_end_token_of_the_model_ends_a_response(
    playground_files: Path, tmp_path: Path, configured: object, more: set[int]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(playground_files / "model")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    if configured is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": configured}))
    elsewhere = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")  # model.tokenizer_path
    assert end_token_ids(elsewhere, str(tmp_path)) == {tokenizer.eos_token_id} | more
    assert end_token_ids(elsewhere, str(tmp_path / "tokenizer")) == {tokenizer.eos_token_id}


def test_an_intent_that_a_step_visits_twice_has_the_rows_of_both_visits() -> None:
    (a, b), (c, d) = new_group_uids(2), new_group_uids(2)
    infos = [{"domain": "toy", "split": "train", "intent_id": name} for name in ("z", "z", "z", "y", "y")]
    keys = [f"{uid}_0_0" for uid in (a, b, c, d, "padding-0")]
    found = with_group_sizes(keys, infos, [False] * 4 + [True], 2)
    assert [row["group_size"] for row in found] == [4, 4, 4, 2, 2]
