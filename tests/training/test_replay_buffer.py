"""Meta-groups leave the queue whole: what may be sampled, what is evicted, and what has to wait."""

from __future__ import annotations

from collections import Counter

import pytest
from verl.trainer.ppo.v1 import replay_buffer as verl_buffer
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from tests.training.support import GROUP as SIZE
from tests.training.support import MemoryQueue, buffer_of
from verl_air.training import replay_buffer
from verl_air.training.rows import group_of, new_group_uids

TRAIN = "train"


def add_group(buffer, *statuses: str, step: int = 1) -> list[str]:
    """A meta-group whose prompts have these statuses."""
    uids = new_group_uids(SIZE)
    for uid, status in zip(uids, statuses, strict=True):
        getattr(buffer, f"{status}_keys")[TRAIN].add(uid)
        buffer.prompt_global_steps[TRAIN][uid] = step
    return uids


DONE = ("finished",) * SIZE


@pytest.mark.parametrize("base", [ReplayBuffer, ReplayBufferAsync])
def test_only_whole_groups_may_be_sampled(base: type) -> None:
    buffer = buffer_of(base)
    whole = add_group(buffer, *DONE)
    add_group(buffer, "finished", "finished", "running")
    add_group(buffer, "finished", "pending", "finished")
    reasons = buffer._terminal_eviction_reasons(1, TRAIN)
    assert buffer._sampleable_terminal_keys(TRAIN, reasons) == set(whole)


@pytest.mark.parametrize("base", [ReplayBuffer, ReplayBufferAsync])
def test_a_failed_prompt_takes_its_group_with_it_once_all_are_terminal(base: type) -> None:
    buffer = buffer_of(base)
    failed = add_group(buffer, "finished", "failure", "finished")
    still_running = add_group(buffer, "finished", "failure", "running")
    whole = add_group(buffer, *DONE)
    reasons = buffer._terminal_eviction_reasons(1, TRAIN)
    assert reasons[2] == set(failed)
    assert buffer._sampleable_terminal_keys(TRAIN, reasons) == set(whole)
    buffer.running_keys[TRAIN].clear()
    buffer.finished_keys[TRAIN].add(still_running[2])
    assert buffer._terminal_eviction_reasons(1, TRAIN)[2] == set(failed) | set(still_running)


def test_in_sync_mode_a_failed_group_may_be_handed_on_for_the_trainer_to_mask() -> None:
    buffer = buffer_of(ReplayBuffer, evict_failed=False)
    failed = add_group(buffer, "finished", "failure", "finished")
    reasons = buffer._terminal_eviction_reasons(1, TRAIN)
    assert reasons[:3] == (set(), set(), set())
    assert buffer._sampleable_terminal_keys(TRAIN, reasons) == set(failed)


def test_a_stale_prompt_takes_its_group_with_it() -> None:
    buffer = buffer_of(ReplayBufferAsync, threshold=2)
    stale = add_group(buffer, *DONE, step=1)
    fresh = add_group(buffer, *DONE, step=3)
    buffer.prompt_global_steps[TRAIN][stale[1]] = 3  # only two of the three are old
    reasons = buffer._terminal_eviction_reasons(3, TRAIN)
    assert reasons[0] == set(stale)
    assert buffer._sampleable_terminal_keys(TRAIN, reasons) == set(fresh)


def test_dapo_removes_a_group_only_if_no_prompt_of_it_has_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = buffer_of(ReplayBufferAsync)
    flat, partly = add_group(buffer, *DONE), add_group(buffer, *DONE)
    without_variance = {*flat, *partly[:2]}
    # verl's own classification reads rewards from TransferQueue; what it found is given here.
    monkeypatch.setattr(ReplayBufferAsync, "_dapo_filtered_keys", lambda self, p: (without_variance, Counter({1.0: 5})))
    reasons = buffer._terminal_eviction_reasons(1, TRAIN)
    assert reasons[1] == set(flat)
    assert buffer._sampleable_terminal_keys(TRAIN, reasons) == set(partly)


@pytest.mark.parametrize("base", [ReplayBuffer, ReplayBufferAsync])
def test_the_oldest_groups_are_taken_first_and_whole(base: type) -> None:
    buffer = buffer_of(base)
    groups = [add_group(buffer, *DONE, step=step) for step in (3, 1, 2, 1)]
    everything = {uid for group in groups for uid in group}
    uids, _, _ = buffer._select_prompt_uids(TRAIN, everything, 3 * SIZE)
    assert len(uids) == 3 * SIZE
    chosen = [group_of(uids[i]) for i in range(0, len(uids), SIZE)]
    assert all(group_of(uids[i]) == chosen[i // SIZE] for i in range(len(uids)))
    assert set(chosen) == {group_of(groups[i][0]) for i in (1, 2, 3)}


def test_validation_is_left_as_verl_has_it() -> None:
    buffer = buffer_of(ReplayBuffer)
    buffer.finished_keys["val"] = {"a-0", "b-0"}
    reasons = buffer._terminal_eviction_reasons(1, "val")
    assert buffer._sampleable_terminal_keys("val", reasons) == {"a-0", "b-0"}


class Clock:
    """Time that passes only while the trainer sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, queue: MemoryQueue, uids: list[str], finished_after: float):
        self.now, self.queue, self.uids, self.end = 1e9, queue, uids, 1e9 + finished_after
        for module in (verl_buffer, replay_buffer):
            monkeypatch.setattr(module, "time", self)

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.end:
            self.queue.prompts(*self.uids, status="finished")


@pytest.mark.parametrize("base", [ReplayBuffer, ReplayBufferAsync])
@pytest.mark.parametrize(
    ("rollout_s", "late_s", "lists"), [(0.05, 0.1, 2), (3.0, 0.1, 31), (100.0, 2.0, 210), (3600.0, 10.0, 620)]
)
def test_the_queue_is_listed_less_often_as_the_wait_grows(
    base: type, rollout_s: float, late_s: float, lists: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer, queue, uids = buffer_of(base), MemoryQueue(monkeypatch), new_group_uids(SIZE)
    for _ in range(2):  # a second wait begins anew
        queue.prompts(*uids, status="running")
        clock = Clock(monkeypatch, queue, uids, rollout_s)
        began, queue.lists = clock.now, 0
        buffer.sample(global_steps=1, partition_id=TRAIN, batch_size=SIZE)
        assert clock.now - began - rollout_s <= late_s + 1e-6
        assert queue.lists <= lists
    assert buffer.poll_interval == 2.0, "verl takes a wait longer than this as idle"
