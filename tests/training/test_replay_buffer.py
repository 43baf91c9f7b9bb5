"""Meta-groups leave the queue whole: what may be sampled, what is evicted, and what has to wait."""

from __future__ import annotations

from collections import Counter

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from verl_air.training.replay_buffer import whole_groups_class
from verl_air.training.rows import group_of, new_group_uids

SIZE = 3
TRAIN = "train"


def buffer_of(base: type, *, evict_failed: bool = True, threshold: int | None = None, **kwargs):
    buffer = base(
        trainer_mode="sync" if base is ReplayBuffer else "colocate_async",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=threshold,
        max_off_policy_strategy="drop",
        sampler_kwargs=OmegaConf.create({}),
        refill_fn=lambda count: None,
        **kwargs,
    )
    buffer.__class__ = whole_groups_class(base)
    buffer.group_size = SIZE
    buffer.evict_failed = evict_failed
    return buffer


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
