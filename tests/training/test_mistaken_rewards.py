"""A mistake in a reward ends the run with its own message.

verl's own replay buffers, agent loop and reward manager, in one process; TransferQueue is a dictionary.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import transfer_queue
from omegaconf import OmegaConf
from ray.exceptions import RayTaskError
from verl.experimental.agent_loop import agent_loop as verl_agent_loop
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.trainer.ppo.v1 import replay_buffer as verl_buffer
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from tests.runs import faulty_rewards
from tests.training.support import GROUP, MemoryQueue, buffer_of
from verl_air.errors import AirError, ConfigError, DataError, RewardError
from verl_air.rewards import compute_score
from verl_air.training.agent_loop import NotingAgentLoopWorker
from verl_air.training.rows import new_group_uids
from verl_air.training.trainer import _noting_manager
from verl_air.training.verl_patches import rows_for_rewards

each_buffer = pytest.mark.parametrize("base", [ReplayBuffer, ReplayBufferAsync])
each_partition = pytest.mark.parametrize("partition", ["train", "val"])


class Words:
    """As much of a tokenizer as a reward manager asks for."""

    def decode(self, ids: Any, skip_special_tokens: bool) -> str:
        return "an answer"


class OneTurn:
    """An agent loop that answers at once."""

    def __init__(self, **_: Any) -> None: ...

    async def run(self, sampling_params: dict[str, Any], **_: Any) -> AgentLoopOutput:
        return AgentLoopOutput(prompt_ids=[1], response_ids=[5, 7], response_mask=[1, 1], metrics=AgentLoopMetrics())


class RewardHandle:
    """A reward worker as the agent loop sees it: an actor whose exceptions come wrapped as Ray wraps them."""

    def __init__(self, score: Callable[..., Awaitable[Any]]) -> None:
        self._manager = NaiveRewardManager(OmegaConf.create({}), Words(), score)
        self.compute_score = SimpleNamespace(remote=self._compute_score)

    async def _compute_score(self, data: Any) -> Any:
        try:
            return await self._manager.run_single(data)
        except Exception as error:  # noqa: BLE001 - as Ray does
            raise RayTaskError("compute_score", "a traceback", error).as_instanceof_cause() from None


def worker_with(score: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Our agent-loop worker, without the engines and models that verl's constructor loads."""
    worker = object.__new__(NotingAgentLoopWorker)
    rollout = {"n": 2, "val_kwargs": {"n": 2}}
    vars(worker).update(
        config=OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}, "data": {}}),
        reward_loop_worker_handles=[RewardHandle(score)],
        distillation_enabled=False,
        mm_processor_kwargs={},
        **dict.fromkeys(("llm_client", "tokenizer", "processor", "hf_model_type", "dataset_cls", "tools")),
    )
    loop = {"_target_": f"{__name__}.OneTurn"}
    monkeypatch.setitem(verl_agent_loop._agent_loop_registry, "one_turn", loop)
    return worker


async def roll_out(worker: Any, queue: MemoryQueue, uids: list[str], partition: str, first_index: int = 0) -> None:
    for index, uid in enumerate(uids, start=first_index):
        info = {"index": index, "intent_id": "z", "role": "open", "domain": "toy", "split": "train"}
        prompt = {"uid": uid, "agent_name": "one_turn", "data_source": "toy/train", "extra_info": info}
        prompt |= {"reward_model": {"ground_truth": "1"}, "global_steps": 1, "raw_prompt": [], "index": index}
        queue.prompts(uid, status="pending", partition=partition)
        where = {"validate": partition == "val", "step": 1, "sample_index": index, "rollout_n": 0}
        await worker._run_prompt(prompt, {}, trajectory=where)


async def out_of_range(**row: Any) -> dict[str, float]:
    """``verl_air.rewards.compute_score`` with a reward that leaves its range on the row of index 1."""
    return await compute_score(**row, routes={"*": "a_tenth_out_of_range"}, modules=[faulty_rewards.__name__])


@each_buffer
@each_partition
async def test_a_mistake_in_a_reward_reaches_the_trainer_with_its_own_message(
    base: type, partition: str, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, buffer = worker_with(out_of_range, monkeypatch), buffer_of(base)
    await roll_out(worker, queue, new_group_uids(GROUP), partition)
    with pytest.raises(
        RewardError, match=r"^reward 'a_tenth_out_of_range' returned 7.0 for row 1 .*outside its"
    ) as found:
        buffer.sample(global_steps=1, partition_id=partition, batch_size=GROUP)
    assert "traceback" not in str(found.value)


@pytest.mark.parametrize("kind", [ConfigError, DataError, RewardError])
async def test_a_mistake_that_does_not_name_its_row_is_named(
    kind: type[AirError], queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def score(**_: Any) -> None:
        raise kind("the recipe is wrong")

    await roll_out(worker_with(score, monkeypatch), queue, new_group_uids(GROUP), "train")
    with pytest.raises(kind, match=r"^row 0 \(intent z\) of 'toy/train': the recipe is wrong$"):
        buffer_of(ReplayBuffer).sample(global_steps=1, partition_id="train", batch_size=GROUP)


async def test_sound_rewards_leave_no_note(queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = worker_with(out_of_range, monkeypatch)
    await roll_out(worker, queue, new_group_uids(GROUP), "train", first_index=2)
    found, _ = buffer_of(ReplayBuffer).sample(global_steps=1, partition_id="train", batch_size=GROUP)
    assert len(found.keys) == 2 * GROUP


@each_buffer
@each_partition
def test_a_mistake_is_seen_while_the_trainer_waits(
    base: type, partition: str, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other rollouts are still running: nothing would end the wait for a long time."""
    uids = new_group_uids(GROUP)
    queue.prompts(*uids, status="running", partition=partition)
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            queue.note(uids[0], kind="RewardError")

    monkeypatch.setattr(verl_buffer.time, "sleep", sleep)
    with pytest.raises(RewardError, match="connection reset"):
        buffer_of(base).sample(global_steps=1, partition_id=partition, batch_size=GROUP)
    assert len(naps) == 3


def test_a_colocated_reward_has_its_own_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Manager:
        def compute_rm_score(self, data: Any) -> None:
            mistake = RewardError("outside its range")
            raise RayTaskError("compute_score_batch", "a traceback", mistake).as_instanceof_cause()

    monkeypatch.setattr(transfer_queue, "kv_batch_get", lambda **_: {"data_source": ["toy/train"]})
    trainer = SimpleNamespace(reward_loop_manager=Manager())
    rows = SimpleNamespace(keys=["a_0_0"], partition_id="train")
    with rows_for_rewards(trainer, rows), pytest.raises(RewardError, match=r"^outside its range$"):
        trainer.reward_loop_manager.compute_rm_score(SimpleNamespace(non_tensor_batch={}))


def test_an_agent_loop_manager_that_hides_mistakes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"agent_loop_manager_class=\S+AgentLoopManagerTQ .* derive it from"):
        _noting_manager("verl.trainer.ppo.v1.agent_loop_tq.AgentLoopManagerTQ")
    assert _noting_manager(_noting_manager(None)) == _noting_manager(None)
