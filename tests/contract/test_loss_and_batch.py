"""``training/{actor_loss,queue_io,batch}.py``: what verl hands to a loss, and how it scales one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import AdvantageEstimator, agg_loss
from verl.trainer.ppo.padding_utils import construct_minimal_padding_template
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.utils.py_functional import rename_dict
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from tests.contract.expect import holds

LOSS, EDITS = "verl_air/training/actor_loss.py", "verl_air/training/queue_io.py"


def nested(*rows: list[float]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


@pytest.fixture
def micro_batch() -> TensorDict:
    """Two rows, of one and of three response tokens, of a mini-batch of six rows on two ranks."""
    data = TensorDict(
        {
            "prompts": nested([5, 6], [5]),
            "responses": nested([7], [7, 8, 9]),
            "response_mask": nested([1], [1, 1, 0]),
            "old_log_probs": nested([-1.0], [-1.0, -1.0, -1.0]),
            "advantages": nested([1.0], [1.0, 1.0, 1.0]),
            "air_weight": nested([2.0], [3.0, 3.0, 3.0]),
        },
        batch_size=2,
    )
    tu.assign_non_tensor(data, dp_size=2, batch_num_tokens=12, global_batch_size=6)
    return data


def test_ppo_loss_reports_the_sizes_of_the_mini_batch(micro_batch: TensorDict) -> None:
    config = ActorConfig(strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=1)
    log_probs = nested([-1.0, -1.1, -9.0], [-1.0, -1.1, -1.2, -9.0])
    _, metrics = ppo_loss(config=config, model_output={"log_probs": log_probs}, data=micro_batch)
    info = [tu.unwrap_non_tensor_data(config.global_batch_info[name]) for name in ("dp_size", "global_batch_size")]
    holds(info == [2, 6], f"ppo_loss fills global_batch_info; it is {info}", used_by=LOSS)
    holds("actor/pg_loss" in metrics, "ppo_loss returns (loss, metrics by name)", used_by=LOSS)


def test_log_probs_of_the_response(micro_batch: TensorDict) -> None:
    """Position t holds the log-prob of token t + 1; the last one of a row belongs to no token."""
    found = no_padding_2_padding(nested([-1.0, -1.1, -9.0], [-1.0, -1.1, -1.2, -9.0]), micro_batch)
    expected = torch.tensor([[-1.1, 0.0, 0.0], [-1.0, -1.1, -1.2]])
    holds(torch.equal(found, expected), "no_padding_2_padding cuts out and pads the response's log-probs", used_by=LOSS)


def test_a_field_of_ours_is_padded_like_verls_own(micro_batch: TensorDict) -> None:
    found = micro_batch.select("response_mask", "air_weight").to_padded_tensor()["air_weight"].tolist()
    kept = found == [[2.0, 0.0, 0.0], [3.0, 3.0, 3.0]]
    holds(kept, "select and to_padded_tensor keep a column of ours", used_by=LOSS)


@pytest.mark.parametrize("mode", ["seq-mean-token-sum", "seq-mean-token-mean"])
def test_verl_divides_by_a_ranks_share_of_the_mini_batch(mode: str) -> None:
    """Masked rows are counted in ``global_batch_size``, which is why our weights are scaled by N / N_valid."""
    loss_mat = torch.tensor([[2.0], [100.0]])
    mask = torch.tensor([[1.0], [0.0]])
    found = agg_loss(loss_mat, mask, mode, dp_size=2, global_batch_size=6)
    holds(
        found.item() == pytest.approx(2.0 * 2 / 6),
        f"agg_loss({mode!r}) is the sum over rows times dp_size / global_batch_size, masked rows left out",
        used_by=f"{LOSS} (auxiliary_loss)",
    )


def test_metrics_of_parts_are_added() -> None:
    used_by = f"{LOSS} (air_loss)"
    parts, more, other_rank = (
        Metric(value=torch.tensor(value), aggregation=AggregationType.SUM) for value in (1.0, 2.0, 5.0)
    )
    parts.append(more)
    holds(parts.aggregate() == pytest.approx(3.0), "a SUM metric adds up over micro-batches", used_by=used_by)
    mean = Metric.aggregate_dp([more, other_rank])
    holds(mean == pytest.approx(3.5), "and is averaged over ranks, as the loss is", used_by=used_by)
    renamed = rename_dict({"air_loss": 1, "actor/pg_loss": 2}, "actor/")
    expected = {"actor/air_loss": 1, "actor/pg_loss": 2}
    holds(renamed == expected, "metrics of a loss get the prefix actor/ once", used_by=used_by)


def advantages(uids: list[str], rewards: list[float], masked: list[int]) -> torch.Tensor:
    mask = torch.ones(len(uids), 2)
    mask[masked] = 0
    scores = torch.zeros(len(uids), 2)
    scores[:, -1] = torch.tensor(rewards)
    data = DataProto.from_dict(
        tensors={"response_mask": mask, "token_level_rewards": scores, "token_level_scores": scores},
        non_tensors={"uid": np.array(uids, dtype=object)},
    )
    keys = [f"key{row}_0_0" for row in range(len(uids))]
    done = compute_advantage_for_multi_trajectories(data, batch_keys=keys, adv_estimator=AdvantageEstimator.GRPO)
    return done.batch["advantages"]


def test_a_masked_row_leaves_its_group_when_its_uid_is_changed() -> None:
    """verl groups by the column ``uid``, not by the key, and multiplies by the mask."""
    whole = advantages(["a", "a", "a"], [0.0, 1.0, 2.0], masked=[])
    found = advantages(["a", "a", "a", "maskedx"], [0.0, 1.0, 2.0, 0.0], masked=[3])
    holds(torch.allclose(found[:3], whole), "GRPO's groups are formed by `uid`", used_by=f"{EDITS} (mask_rows)")
    holds(not found[3].any(), "a row with an empty mask has advantage 0", used_by=f"{EDITS} (mask_rows)")


def test_a_lone_completion_keeps_its_raw_reward() -> None:
    """Without a baseline that is noise: we clear it where other completions were abstained."""
    found = advantages(["a", "a", "b"], [0.0, 1.0, 3.5], masked=[])[2].tolist()
    what = f"the advantage of a group of one is its reward; it is {found}"
    holds(found == pytest.approx([3.5, 3.5], rel=1e-5), what, used_by=f"{EDITS} (clear_advantages)")


def test_padding_rows_take_no_part() -> None:
    source = {"position_ids": torch.arange(3), "rm_scores": torch.ones(2), "extra_info": {"role": "anchor"}}
    row, tag = construct_minimal_padding_template(source, {"seq_len": 3}, eos_token_id=2)
    used_by = "verl_air/training/batch.py"
    holds(tag.get("is_padding") is True, "a padding row is tagged is_padding", used_by=used_by)
    holds(row["response_mask"].tolist() == [0], "it has one response token, masked", used_by=used_by)
    holds(not row["rm_scores"].any(), "its reward is 0", used_by=used_by)
    holds(row["extra_info"] == source["extra_info"], "it carries a real row's extra_info", used_by=used_by)


def test_columns_are_assigned_to_a_batch() -> None:
    data = TensorDict({"x": torch.zeros(2)}, batch_size=2)
    tu.assign_non_tensor_stack(data, "uid", ["a-0", "a-1"])
    holds(list(data["uid"]) == ["a-0", "a-1"], "assign_non_tensor_stack adds a column of strings", used_by=EDITS)
