"""Rollouts are trained on in whole meta-groups, in every mode and after failures.

verl's replay buffers look at single prompts: ready, failed, stale, filtered. Here a meta-group is ready when all its
prompts are, and leaves as one. One prompt that must go takes its group with it, but only once all of the group's
prompts are terminal: a rollout that is still running would otherwise write into a queue that was just cleared.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from verl_air.training.rows import group_of

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer as _Base

    from verl_air.training.failures import FailureGuard

else:
    _Base = object

POLL_SHARE, POLL_MIN_S, POLL_MAX_S = 0.02, 0.1, 10.0
"""The queue is listed again after this share of the time that was waited, within these limits in seconds. A step of
seconds loses a tenth of one; in a rollout of an hour the queue is listed some 600 times, not 36,000."""

Reasons = tuple[set[str], set[str], set[str], "Counter[float]"]


class WholeGroups(_Base):
    """Mixed into verl's ``ReplayBuffer`` and ``ReplayBufferAsync`` by :func:`whole_groups_class`.

    Attributes:
        group_size: prompts per meta-group.
        evict_failed: whether a meta-group with a failed rollout is replaced (else it is handed on, for the trainer's
            ``incomplete_groups`` policy to mask). The asynchronous buffer always replaces.
        on_validation_batch: called with each validation batch, before verl clears it.
        failures: looks at the queue at each poll, and ends the run.
    """

    group_size: int
    evict_failed: bool
    on_validation_batch: Callable[[Any], None]
    failures: FailureGuard
    _wait_began: float = 0.0
    _last_debug_time: float = 0.0
    # verl's own:
    poll_interval: float
    pending_keys: dict[str, set[str]]
    running_keys: dict[str, set[str]]
    finished_keys: dict[str, set[str]]
    failure_keys: dict[str, set[str]]

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        """verl's own; a validation batch is shown to the trainer too."""
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        if partition_id == "val":
            self.on_validation_batch(batch)
        return batch, metrics

    def _sync_metadata_from_transfer_queue(self) -> None:
        super()._sync_metadata_from_transfer_queue()
        self.failures.check_queue(self)

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        """verl's own, with an interval that grows with the wait.

        Between polls ``poll_interval`` is verl's: the separate trainer takes a wait longer than that as idle. verl
        begins a wait with the time of its beginning, and from then on passes what this returned.
        """
        if last_debug_time != self._last_debug_time:
            self._wait_began = last_debug_time
        idle_after_s = self.poll_interval
        self.poll_interval = min(max(POLL_MIN_S, POLL_SHARE * (time.time() - self._wait_began)), POLL_MAX_S)
        try:
            self._last_debug_time = super()._wait_for_next_poll(partition_id, last_debug_time)
        finally:
            self.poll_interval = idle_after_s
        return self._last_debug_time

    def _terminal_eviction_reasons(self, global_steps: int, partition_id: str) -> Reasons:
        stale, filtered, failed, counts = super()._terminal_eviction_reasons(global_steps, partition_id)
        if partition_id == "val":
            return stale, filtered, failed, counts
        if self.evict_failed:
            failed = failed | self.failure_keys[partition_id]
        members = self._members(partition_id)
        # A prompt without variance teaches GRPO nothing, but its group still teaches AIR: only a group of nothing but
        # such prompts goes.
        filtered_groups = {g for g in _groups(filtered) if members[g] <= filtered}
        in_flight = self.pending_keys[partition_id] | self.running_keys[partition_id]
        terminal = {group for group, uids in members.items() if not uids & in_flight}
        return (
            _expand(_groups(stale) & terminal, members),
            _expand(filtered_groups & terminal, members),
            _expand(_groups(failed) & terminal, members),
            counts if filtered_groups & terminal else Counter(),
        )

    def _sampleable_terminal_keys(self, partition_id: str, eviction_reasons: Reasons) -> set[str]:
        sampleable = super()._sampleable_terminal_keys(partition_id, eviction_reasons)
        if partition_id == "val":
            return sampleable
        members = self._members(partition_id)
        return {uid for uid in sampleable if len(members[group_of(uid)] & sampleable) == self.group_size}

    def _select_prompt_uids(
        self, partition_id: str, sampleable_keys: set[str], batch_size: int
    ) -> tuple[list[str], dict[str, dict], dict[str, int]]:
        uids, snapshot, steps = super()._select_prompt_uids(partition_id, sampleable_keys, len(sampleable_keys))
        if partition_id == "val":
            return uids[:batch_size], snapshot, steps
        oldest_first: dict[str, list[str]] = defaultdict(list)
        for uid in uids:
            oldest_first[group_of(uid)].append(uid)
        whole = [uid for group in oldest_first.values() for uid in sorted(group)]
        return whole[:batch_size], snapshot, steps

    def _members(self, partition_id: str) -> dict[str, set[str]]:
        """The prompts of each meta-group in the queue."""
        members: dict[str, set[str]] = defaultdict(set)
        for keys in (self.pending_keys, self.running_keys, self.finished_keys, self.failure_keys):
            for uid in keys[partition_id]:
                members[group_of(uid)].add(uid)
        return members


def _groups(uids: Iterable[str]) -> set[str]:
    return {group_of(uid) for uid in uids}


def _expand(groups: set[str], members: dict[str, set[str]]) -> set[str]:
    return {uid for group in groups for uid in members[group]}


@cache  # one class per base
def whole_groups_class(base: type[ReplayBuffer]) -> type[ReplayBuffer]:
    """A subclass of one of verl's replay buffers that samples and evicts whole meta-groups."""
    return type(f"WholeGroup{base.__name__}", (WholeGroups, base), {"__module__": __name__})
