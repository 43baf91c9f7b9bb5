"""When failures end a run: a mistake at once, what may be transient above a rate, a row that keeps failing not at all.

=================================================  =====================================================================
what failed                                        then
=================================================  =====================================================================
``RewardError``, ``ConfigError``, ``DataError``    the run ends with that error, as soon as the trainer looks at the
                                                   queue: at each poll, in validation too
a process that verl does not start again           the same, with the cause that Ray gives
any other exception of a rollout or its reward     its prompt failed; above ``air.max_failed_rate`` the run ends
a judge that abstains                              the row is masked; above ``air.max_abstain_rate`` the run ends
a row that failed ``ROW_FAILURES`` times           its intent is set aside, and named in the log
=================================================  =====================================================================
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import transfer_queue as tq

from verl_air.config import AirConfig
from verl_air.errors import AirError, ConfigError, DataError, RewardError, RolloutError
from verl_air.training.batch import Trajectories

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

log = logging.getLogger(__name__)

NOTES = "air_failures"
"""The partition of the notes. A key is ``{uid}_{session}``; a note is a tag, without data."""

ROW_FAILURES = 3
"""Visits in which a row may fail before its intent is set aside."""

MISTAKES: dict[str, type[AirError]] = {cls.__name__: cls for cls in (ConfigError, DataError, RewardError)}

_CAUSES = 3
_CAUSE_LIMIT = 300


@dataclass
class _Step:
    counts: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)


class FailureGuard:
    """Counts what fails over the last ``air.failure_window`` steps and ends the run when it is too much.

    Args:
        air: ``max_failed_rate``, ``max_abstain_rate`` and ``failure_window``.
        set_aside: called with the name of an intent (``<domain>/<intent_id>``) that must not be visited again.
    """

    def __init__(self, air: AirConfig, set_aside: Callable[[str], None]) -> None:
        self._air, self._set_aside = air, set_aside
        self._steps: deque[_Step] = deque([_Step()], maxlen=air.failure_window)
        self._terminal: dict[str, set[str]] = {}
        self._row_failures: dict[str, set[str]] = defaultdict(set)

    def begin_step(self) -> None:
        """What is counted from now on belongs to the next step."""
        self._steps.append(_Step())

    def check_queue(self, buffer: ReplayBuffer) -> None:
        """Look at what a replay buffer has just read of the queue.

        Raises:
            ConfigError, DataError, RewardError: a mistake that a rollout or its reward has met.
            RolloutError: a process died, or too many prompts failed.
        """
        notes = buffer.partitions.pop(NOTES, {})
        self._read({key: note for key, note in notes.items() if note})  # TransferQueue lists a key before its tag
        for partition in ("train", "val"):
            failed, finished = buffer.failure_keys[partition], buffer.finished_keys[partition]
            new = (failed | finished) - self._terminal.get(partition, set())
            self._terminal[partition] = failed | finished
            self._steps[-1].counts[f"{partition} prompts"] += len(new)
            self._steps[-1].counts[f"failed {partition} prompts"] += len(new & failed)
            in_flight = len(buffer.pending_keys[partition] | buffer.running_keys[partition])
            n_failed, rate, said = self._rate(f"failed {partition} prompts", f"{partition} prompts", in_flight)
            if n_failed and rate > self._air.max_failed_rate:
                raise RolloutError(
                    f"rollouts failed: {said}; air.max_failed_rate is {self._air.max_failed_rate:.0%}. "
                    f"{self.first_causes()}. Fix the cause and resume from the last checkpoint."
                )

    def check_abstentions(self, trajectories: Trajectories) -> None:
        """Count one batch.

        Raises:
            RewardError: the judge abstained on too many open rows.
        """
        open_N = trajectories.real_N & ~trajectories.is_anchor_N
        self._steps[-1].counts["open rows"] += int(np.sum(open_N))
        self._steps[-1].counts["abstained open rows"] += int(np.sum(trajectories.abstained_N & open_N))
        _, rate, said = self._rate("abstained open rows", "open rows")
        if rate > self._air.max_abstain_rate:
            raise RewardError(
                f"the judge abstained: {said}; air.max_abstain_rate is {self._air.max_abstain_rate:.0%}. Look for the "
                "reasons that the reward workers logged (a judge server that is down or overloaded, a verdict word "
                "that it does not return), fix them, and resume from the last checkpoint."
            )

    def first_causes(self) -> str:
        """The first causes of failed rollouts in the window, with how often each was seen."""
        causes: Counter[str] = Counter()
        for step in self._steps:
            causes.update(step.causes)
        named = [f"{cause} ({count} times)" for cause, count in list(causes.items())[:_CAUSES]]
        return f"First causes: {'; '.join(named)}" if named else "The agent-loop workers logged no cause"

    def _rate(self, part: str, whole: str, more: int = 0) -> tuple[int, float, str]:
        """A count over the window, its share of another, and both in words; ``more`` belongs to the other."""
        n_part, n_whole = (sum(step.counts[name] for step in self._steps) for name in (part, whole))
        share = n_part / max(n_whole + more, 1)
        return (
            n_part,
            share,
            f"{n_part} {part} of {n_whole + more} ({share:.0%}) in the last {len(self._steps)} step(s)",
        )

    def _read(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        for key, note in notes.items():
            if note["kind"] in MISTAKES:
                where = "" if note["row"] in note["message"] else f"{note['row']}: "
                raise MISTAKES[note["kind"]](f"{where}{note['message']}")
            if note["died"]:
                message = " ".join(note["message"].split())
                raise RolloutError(f"{note['row']}: a process that rollouts need has died: {message}")
            cause = f"{note['kind']}: {' '.join(note['message'].split())[:_CAUSE_LIMIT]}"
            self._steps[-1].causes[cause] += 1
            if not note["validate"]:
                self._count_row(key.split("_")[0], note, cause)
        if notes:
            tq.kv_clear(keys=list(notes), partition_id=NOTES)

    def _count_row(self, uid: str, note: Mapping[str, Any], cause: str) -> None:
        visits = self._row_failures[note["row"]]
        if uid in visits:  # another completion of the same visit
            return
        visits.add(uid)
        if len(visits) == ROW_FAILURES:
            self._set_aside(note["intent"])
            log.warning("%s failed %d times and its intent is set aside; last: %s", note["row"], ROW_FAILURES, cause)


def reissue_failed(partition: str = "train") -> None:
    """After a checkpoint was loaded: forget its notes, and let the prompts that failed run again.

    verl stores its queue with the checkpoint. What a note complains of may have been fixed since.
    """
    queue = tq.kv_list() or {}
    notes, prompts = queue.get(NOTES, {}), queue.get(partition, {})
    if notes:
        tq.kv_clear(keys=list(notes), partition_id=NOTES)
    if failed := [key for key, tag in prompts.items() if tag.get("is_prompt") and tag.get("status") == "failure"]:
        tq.kv_batch_put(keys=failed, partition_id=partition, tags=[{"status": "pending"}] * len(failed))
