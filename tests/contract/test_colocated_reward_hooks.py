"""``verl_air/training/verl_patches.py``: what verl hands a colocated reward model, and what it stores."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.protocol import DataProto
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from tests.contract.expect import holds
from tests.contract.test_trainer_hooks import probe
from verl_air.training.verl_patches import ROW_FIELDS, rows_for_rewards

OURS = "verl_air/training/verl_patches.py"
REWARD_LOOP = "verl.experimental.reward_loop.reward_loop"


TOKENS = torch.nested.as_nested_tensor([torch.tensor([5, 6]), torch.tensor([7])], layout=torch.jagged)
COLUMNS: dict[str, Any] = {
    "prompts": TOKENS,
    "responses": TOKENS,
    "raw_prompt": [[{"role": "user", "content": "How?"}]] * 2,
    "data_source": ["maths/train", "maths/id"],
    "reward_model": [{"ground_truth": "1"}, {"ground_truth": "2"}],
    "extra_info": [{"role": "open"}, {"role": "anchor"}],
    "num_turns": [2, 2],
    "extra_fields": [{"turn_scores": [1]}, {"turn_scores": []}],
}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is written back; TransferQueue returns the two rows of ``COLUMNS``."""
    found: dict[str, Any] = {}

    def get(keys: Sequence[str], partition_id: str, select_fields: Sequence[str]) -> dict[str, Any]:
        return {name: COLUMNS[name] for name in select_fields}

    def put(keys: Sequence[str], partition_id: str, fields: Any) -> None:
        found.update({name: fields[name] for name in fields.keys()})  # noqa: SIM118 - a TensorDict

    monkeypatch.setattr(trainer_base.tq, "kv_batch_get", get)
    monkeypatch.setattr(trainer_base.tq, "kv_batch_put", put)
    return found


class Manager:
    """A reward loop that gives 1.5 and 2.5, and says how; it remembers what it was handed."""

    def compute_rm_score(self, data: DataProto) -> DataProto:
        self.handed = data.non_tensor_batch
        scores = torch.zeros_like(data.batch["responses"], dtype=torch.float32)
        scores[:, 0] = torch.tensor([1.5, 2.5])
        return DataProto.from_dict(
            tensors={"rm_scores": scores},
            non_tensors={"acc": np.array([1.0, 0.0])},
            meta_info={"reward_extra_keys": ["acc"]},
        )


@pytest.fixture
def trainer() -> PPOTrainer:
    return probe([], reward_loop_manager=Manager(), tokenizer=SimpleNamespace(pad_token_id=0))


class Rows:
    """A batch with a length, as verl asks for it."""

    keys = ("a_0_0", "b_0_0")
    partition_id = "train"

    def __len__(self) -> int:
        return len(self.keys)


@pytest.mark.usefixtures("written")
def test_verl_alone_hands_on_no_more_than_the_prompt(trainer: Any) -> None:
    manager = trainer.reward_loop_manager
    PPOTrainer._compute_reward_colocate(trainer, Rows())
    missing = {"data_source", "reward_model", "extra_info"} - set(manager.handed)
    holds(
        missing == {"data_source", "reward_model", "extra_info"},
        "a colocated reward model is handed neither data_source nor the row's other columns (if verl hands them on "
        "now, see whether our wrapper is still needed)",
        used_by=OURS,
    )


def test_with_our_wrapper_the_reward_function_gets_its_row(trainer: Any, written: dict[str, Any]) -> None:
    manager = trainer.reward_loop_manager
    with rows_for_rewards(trainer, Rows()):
        PPOTrainer._compute_reward_colocate(trainer, Rows())
    assert trainer.reward_loop_manager is manager
    holds(
        manager.handed["data_source"].tolist() == ["maths/train", "maths/id"],
        "_compute_reward_colocate calls self.reward_loop_manager.compute_rm_score with rows in the order of batch.keys",
        used_by=OURS,
    )
    assert {"data_source", "reward_model", "extra_info"} <= set(ROW_FIELDS)
    assert [info["role"] for info in manager.handed["extra_info"]] == ["open", "anchor"]
    assert [item["turn_scores"] for item in manager.handed["tool_extra_fields"]] == [[1], []]
    scores = [row.sum().item() for row in written["rm_scores"].unbind()]
    holds(scores == [1.5, 2.5], f"it stores the scores as rm_scores; they are {scores}", used_by=OURS)
    stored = [getattr(item, "data", item) for item in written["extra_fields"]]
    assert [item["reward_extra_info"] for item in stored] == [{"acc": 1.0}, {"acc": 0.0}]
    assert stored[0]["turn_scores"] == [1], "what was in extra_fields stays"
    holds("acc" not in written, "without reward_extra_keys it stores no columns alongside them", used_by=OURS)


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_reward_function_of_the_recipes_goes_before_verls_own_query(enabled: bool) -> None:
    """verl's own query of a discriminative model returns no ``reward_extra_info``, and the agent loop fails on that."""
    reward = {"custom_reward_function": {"path": "pkg://verl_air.rewards"}, "reward_model": {"enable": enabled}}
    worker = object.__new__(RewardLoopWorker)

    async def run_single(data: Any) -> dict[str, Any]:
        return {"reward_score": 1.0, "reward_extra_info": {}}

    worker.config = OmegaConf.create({"reward": reward})
    worker.reward_manager = SimpleNamespace(run_single=run_single)
    result = await worker.compute_score(SimpleNamespace())
    holds(
        "reward_extra_info" in result,
        f"{REWARD_LOOP} calls the recipe's reward function whether or not a reward model is served",
        used_by="reward_fns/discriminative.py",
    )
