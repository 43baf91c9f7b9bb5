"""``verl_air/training/replay_buffer.py``: the inside of verl's replay buffers that whole meta-groups hang on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.v1 import replay_buffer as module
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from tests.contract.expect import holds

USED_BY = "verl_air/training/replay_buffer.py"
each_buffer = pytest.mark.parametrize("cls", [ReplayBuffer, ReplayBufferAsync])


def buffer(cls: type[ReplayBuffer], **settings: Any) -> ReplayBuffer:
    return cls(
        trainer_mode="sync" if cls is ReplayBuffer else "separate_async",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=1,
        max_off_policy_strategy="drop",
        sampler_kwargs=OmegaConf.create({}),
        refill_fn=lambda count: count,
        **settings,
    )


class Queue:
    """TransferQueue's list of keys and tags, and what was cleared of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cleared: set[str] = set()
        self.tags: dict[str, dict[str, Any]] = {}
        monkeypatch.setattr(module.tq, "kv_list", lambda *args: {"train": self.tags})
        monkeypatch.setattr(module.tq, "kv_clear", lambda keys, partition_id: self.cleared.update(keys))

    def fill(self, **uids: str) -> None:
        """Prompts by status; a finished one has two trajectories."""
        for status, names in uids.items():
            for uid in names.split():
                self.tags[uid] = {"is_prompt": True, "status": status, "global_steps": 1}
                if status == "finished":
                    self.tags.update({f"{uid}_{session}_0": {"seq_len": 4} for session in range(2)})

    def buffer(self, cls: type[ReplayBuffer], **uids: str) -> ReplayBuffer:
        """A buffer that has read the queue."""
        self.fill(**uids)
        found = buffer(cls)
        found._sync_metadata_from_transfer_queue()
        return found


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(monkeypatch)


@each_buffer
def test_prompts_are_sorted_by_status_into_these_attributes(cls: type[ReplayBuffer], queue: Queue) -> None:
    status = {"pending": "a-0", "running": "a-1", "finished": "b-0", "failure": "b-1"}
    rows = queue.buffer(cls, **status)
    for name, uid in status.items():
        found = getattr(rows, f"{name}_keys")["train"]
        holds(found == {uid}, f"{name}_keys[partition] is the set of {name} prompts; it is {found}", used_by=USED_BY)


@each_buffer
def test_reasons_are_three_sets_and_a_count(cls: type[ReplayBuffer], queue: Queue) -> None:
    rows = queue.buffer(cls, finished="a-0", failure="a-1")
    reasons = rows._terminal_eviction_reasons(1, "train")
    holds(len(reasons) == 4, "_terminal_eviction_reasons returns (stale, filtered, failed, counts)", used_by=USED_BY)
    stale, filtered, failed, counts = reasons
    holds(isinstance(counts, Counter), "its fourth part is a Counter of rewards", used_by=USED_BY)
    holds((stale, filtered) == (set(), set()), "its first parts are sets of prompt uids", used_by=USED_BY)
    expected = {"a-1"} if cls is ReplayBufferAsync else set()
    what = "the asynchronous buffer evicts failed prompts, the synchronous one only empty ones and on request"
    holds(failed == expected, what, used_by=f"{USED_BY} (evict_failed)")
    sampleable = rows._sampleable_terminal_keys("train", reasons)
    holds(sampleable == {"a-0", "a-1"} - expected, "sampleable prompts are the terminal rest", used_by=USED_BY)


def test_stale_prompts_come_first(queue: Queue) -> None:
    stale, *_ = queue.buffer(ReplayBufferAsync, finished="a-0")._terminal_eviction_reasons(5, "train")
    holds(stale == {"a-0"}, "a prompt four versions old is stale at a threshold of one", used_by=USED_BY)


@each_buffer
def test_eviction_clears_a_prompt_with_its_trajectories(cls: type[ReplayBuffer], queue: Queue) -> None:
    """Keys are split at the first underscore: a uid of ours, which holds a hyphen, comes out whole."""
    rows = queue.buffer(cls, finished="a-0 b-0")
    evicted, *_ = rows._evict_terminal_groups(1, "train", (set(), set(), {"a-0"}, Counter()))
    holds(evicted == {"a-0"}, "what is evicted is the union of the three sets", used_by=USED_BY)
    what = f"a trajectory's key is {{uid}}_{{session}}_{{index}}; cleared {sorted(queue.cleared)}"
    holds(queue.cleared == {"a-0", "a-0_0_0", "a-0_1_0"}, what, used_by="verl_air/training/rows.py")


@each_buffer
def test_a_batch_is_what_was_selected(cls: type[ReplayBuffer], queue: Queue) -> None:
    rows = queue.buffer(cls, finished="a-0 a-1 b-0")
    rows.poll_interval = 0.01
    batch, _ = rows.sample(global_steps=1, partition_id="train", batch_size=2)
    uids = {key.split("_")[0] for key in batch.keys}
    whole = len(uids) == 2 and len(batch.keys) == 4
    holds(whole, "a batch of two prompts holds all of their trajectories", used_by=USED_BY)
    chosen, snapshot, steps = rows._select_prompt_uids("train", {"a-0", "a-1", "b-0"}, 3)
    right = len(chosen) == 3 and set(snapshot) and set(steps) == {"a-0", "a-1", "b-0"}
    what = "_select_prompt_uids returns (uids, trajectories with tags, step of each prompt)"
    holds(right, what, used_by=USED_BY)


def test_a_failed_prompt_without_trajectories_is_refilled_one_for_one(queue: Queue) -> None:
    """The synchronous buffer asks for as many prompts as it evicted as failed; ours evicts whole groups as failed."""
    queue.fill(failure="a-0", finished="a-1")
    asked: list[int] = []

    def refill(count: int) -> None:
        asked.append(count)
        del queue.tags["a-0"]
        queue.tags.update({"b-0": {"is_prompt": True, "status": "finished", "global_steps": 1}, "b-0_0_0": {}})

    rows = buffer(ReplayBuffer, sync_refill_failed_groups=True, gen_batch_size=1)
    rows.refill_fn, rows.poll_interval = refill, 0.01
    rows.sample(global_steps=1, partition_id="train", batch_size=2)
    holds(asked == [1], f"one failed prompt is replaced by one; refill_fn was asked for {asked}", used_by=USED_BY)


@each_buffer
def test_validation_is_never_evicted(cls: type[ReplayBuffer]) -> None:
    rows = buffer(cls)
    rows.failure_keys["val"] = {"a-0"}
    reasons = rows._terminal_eviction_reasons(1, "val")
    holds(not any(reasons), "nothing of the partition `val` is evicted", used_by=USED_BY)
