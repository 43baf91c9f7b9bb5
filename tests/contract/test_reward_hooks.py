"""``verl_air/rewards``: how verl finds a reward function, what it hands it, and what becomes of the answer."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.protocol import DataProto
from verl.trainer.ppo.reward import get_custom_reward_fn

from tests.contract.expect import holds

SCORE = "verl_air/rewards/score.py (compute_score)"


class Words:
    """As much of a tokenizer as a reward manager asks for."""

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        return " ".join(str(int(token)) for token in ids)


def one_response() -> DataProto:
    return DataProto(
        batch=TensorDict({"responses": torch.tensor([[7, 8, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}, 1),
        non_tensor_batch={
            "data_source": np.array(["maths/id"], dtype=object),
            "reward_model": np.array([{"ground_truth": "42"}], dtype=object),
            "extra_info": np.array([{"role": "open"}], dtype=object),
        },
    )


@pytest.mark.parametrize("router", [None, "127.0.0.1:1"])
async def test_what_a_reward_function_is_called_with(router: str | None) -> None:
    seen: dict[str, Any] = {}

    async def score(**kwargs: Any) -> dict[str, float]:
        seen.update(kwargs)
        return {"score": 1.5, "acc": 1.0}

    manager = NaiveRewardManager(OmegaConf.create({}), Words(), score, reward_router_address=router)
    result = await manager.run_single(one_response())
    expected = {"data_source", "solution_str", "ground_truth", "extra_info"}
    if router is not None:
        expected |= {"reward_router_address", "reward_model_tokenizer"}
    holds(set(seen) == expected, f"a reward function gets {sorted(expected)}; it gets {sorted(seen)}", used_by=SCORE)
    holds(seen["solution_str"] == "7 8", "solution_str is the response without its padding", used_by=SCORE)
    holds((seen["ground_truth"], seen["extra_info"]["role"]) == ("42", "open"), "the row is handed on", used_by=SCORE)
    holds(
        result == {"reward_score": 1.5, "reward_extra_info": {"score": 1.5, "acc": 1.0}},
        f"`score` is the reward and all keys become reward_extra_info; the result is {result}",
        used_by="verl_air/training/batch.py (REWARD_INFO)",
    )


async def test_a_reward_function_is_found_by_package_and_gets_its_settings() -> None:
    function = {
        "path": "pkg://verl_air.rewards",
        "name": "compute_score",
        "reward_kwargs": {"routes": {"maths/open": "exact_match"}, "modules": ["reward_fns"]},
    }
    score = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": function}}))
    holds(inspect.iscoroutinefunction(score), "an async function stays one", used_by=SCORE)
    assert score is not None
    answer = "<think>so</think><answer>42</answer>"
    extra_info = {"role": "open", "domain": "maths", "split": "id", "intent_id": "a", "index": 0}
    result = await score(data_source="maths/id", solution_str=answer, ground_truth="42", extra_info=extra_info)
    holds(result["acc"] == 1.0, "reward_kwargs reach the function as keywords", used_by=SCORE)
