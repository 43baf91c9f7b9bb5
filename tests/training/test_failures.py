"""What may be transient ends the run above a rate, with the causes named: verl's replay buffers, a queue in memory."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from tests.training.support import GROUP, NAN, MemoryQueue, batch, buffer_of
from verl_air.config import AirConfig
from verl_air.errors import RewardError, RolloutError
from verl_air.training import failures
from verl_air.training.failures import NOTES, ROW_FAILURES, FailureGuard, reissue_failed
from verl_air.training.rows import new_group_uids


def failed_group(queue: MemoryQueue) -> None:
    """A meta-group in which every rollout failed."""
    uids = new_group_uids(GROUP)
    for uid in uids:
        queue.note(uid, row=f"row of {uid}")
    queue.prompts(*uids, status="failure")


@pytest.mark.parametrize(
    ("base", "settings"),
    [(ReplayBuffer, {"sync_refill_failed_groups": True, "gen_batch_size": 1}), (ReplayBufferAsync, {})],
    ids=["refill", "async"],
)
def test_replacements_are_not_drawn_without_a_bound(base: type, settings: dict[str, Any], queue: MemoryQueue) -> None:
    asked: list[int] = []

    def refill(count: int) -> None:
        asked.append(count)
        assert len(asked) < 100
        failed_group(queue)

    buffer = buffer_of(base, refill_fn=refill, **settings)
    for _ in range(6):
        queue.prompts(*new_group_uids(GROUP), status="running")
    failed_group(queue)
    with pytest.raises(RolloutError) as found:
        buffer.sample(global_steps=1, partition_id="train", batch_size=GROUP)
    # 18 prompts are in flight and count as good; 3 fail each time.
    assert str(found.value) == (
        "rollouts failed: 6 failed train prompts of 24 (25%) in the last 1 step(s); air.max_failed_rate is 20%. First "
        "causes: OSError: connection reset (6 times). Fix the cause and resume from the last checkpoint."
    )
    assert asked == [GROUP]


def test_the_rate_is_that_of_a_window(queue: MemoryQueue) -> None:
    guard = FailureGuard(AirConfig(max_failed_rate=0.5, failure_window=2), lambda name: None)
    buffer = buffer_of(ReplayBuffer)
    buffer.failures = guard

    def step(status: str) -> None:
        guard.begin_step()
        queue.tags.clear()
        queue.prompts(*new_group_uids(GROUP), status=status)
        for _ in range(3):  # however often the queue is read, a prompt counts once
            buffer._sync_metadata_from_transfer_queue()

    for status in ("finished", "failure", "finished", "failure"):
        step(status)
    with pytest.raises(RolloutError, match=r"6 failed train prompts of 6 \(100%\) in the last 2 step"):
        step("failure")


def test_validation_is_counted_apart(queue: MemoryQueue) -> None:
    buffer = buffer_of(ReplayBuffer)
    queue.prompts(*(f"t{n}" for n in range(100)), status="finished")
    queue.prompts(*(f"v{n}" for n in range(9)), status="finished", partition="val")
    queue.prompts("w0", "w1", "w2", status="failure", partition="val")
    with pytest.raises(RolloutError, match=r"3 failed val prompts of 12 \(25%\)"):
        buffer.sample(global_steps=1, partition_id="val", batch_size=12)


def test_the_run_stops_when_the_judge_abstains_too_often() -> None:
    guard = FailureGuard(AirConfig(max_abstain_rate=0.5, failure_window=2), lambda name: None)
    healthy, failing = batch([[[2.5] * 3, [0.25] * 3]]), batch([[[2.5] * 3, [NAN] * 3]])
    for rows in (healthy, failing):  # 3 of 6
        guard.begin_step()
        guard.check_abstentions(rows)
    guard.begin_step()
    with pytest.raises(RewardError, match=r"6 abstained open rows of 6 \(100%\) in the last 2 step"):
        guard.check_abstentions(failing)


def test_a_note_that_is_only_half_written_is_read_at_the_next_poll(queue: MemoryQueue) -> None:
    buffer = buffer_of(ReplayBufferAsync)
    queue.tags[NOTES]["a-0_0"] = {}
    assert buffer.get_sampleable_count(1, "train") == 0
    queue.note("a-0", kind="RewardError")
    with pytest.raises(RewardError, match="connection reset"):
        buffer.get_sampleable_count(1, "train")


def test_a_process_that_died_ends_the_run(queue: MemoryQueue) -> None:
    queue.note("a-0", kind="ActorDiedError", message="killed for its memory", died=True)
    with pytest.raises(RolloutError, match="row 3: a process that rollouts need has died: killed for its memory"):
        buffer_of(ReplayBufferAsync).get_sampleable_count(1, "train")


def test_a_row_that_keeps_failing_is_set_aside_and_named(queue: MemoryQueue, caplog: pytest.LogCaptureFixture) -> None:
    buffer = buffer_of(ReplayBuffer)
    queue.prompts(*(f"t{n}" for n in range(100)), status="running")
    for visit in range(ROW_FAILURES + 2):
        assert buffer.set_aside == (["toy/z"] if visit >= ROW_FAILURES else [])
        queue.note(f"a{visit}-0", validate=True, row="row 8", intent="toy/never")
        queue.note(f"b{visit}-0")
        queue.note(f"c{visit}-0", row=f"row {visit + 20}", intent="toy/other")
        with caplog.at_level(logging.WARNING):
            buffer._sync_metadata_from_transfer_queue()
        assert not queue.tags[NOTES], "notes are read once"
    ours = "row 3 failed 3 times and its intent is set aside; last: OSError: connection reset"
    assert [record.message for record in caplog.records if record.name == failures.__name__] == [ours]


def test_a_resumed_run_retries_what_had_failed(queue: MemoryQueue) -> None:
    """Its queue is the checkpoint's: the mistake that ended the run is in it, and may have been corrected since."""
    queue.prompts("a-0", status="failure")
    queue.prompts("a-1", status="finished")
    queue.note("a-0", kind="RewardError")
    reissue_failed()
    buffer = buffer_of(ReplayBufferAsync)
    assert buffer.get_sampleable_count(1, "train") == 0
    assert (buffer.pending_keys["train"], buffer.finished_keys["train"]) == ({"a-0"}, {"a-1"})
