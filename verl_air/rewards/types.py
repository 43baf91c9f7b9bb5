"""What a reward function is given, what it returns, the one schema that verl receives, and how faults are logged."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from verl_air.errors import RewardError

ABSTAIN: Final = "abstain"
"""Returned by a reward function that cannot decide. It is never turned into a number."""

REWARD_KEYS: Final = (
    "score",  # task + format: what the policy is trained on; NaN if abstained
    "acc",  # 1 right, 0 wrong; NaN if abstained
    "format_ok",  # 1 or 0: whether there is an answer in the response style
    "abstained",  # 1 or 0
    "task_reward",  # NaN if abstained
    "format_reward",  # NaN in the style `plain`, which has none
    "score_min",  # range of `score`
    "score_max",
    "task_min",  # range of `task_reward`
    "task_max",
    "judge_mass",  # mean probability that a judge gave to the verdict words; NaN if none was asked for words
    "judge",  # which judge was asked: its place among ScoringPlan.judges; NaN if the row is judged by a rule
)
"""The keys of every result, always all of them, always floats.

verl takes the keys of a batch from its first row and cannot store ``None`` (its issues 7151, 6545, 6830).
"""


@dataclass(frozen=True)
class Sample:
    """One response, and what its row says about it.

    response: the whole text that the policy wrote.
    answer: what the response style takes for the answer, stripped; ``None`` unless the format is right.
    format_ok: whether the format is right.
    ground_truth: ``reward_model.ground_truth`` of the row.
    data_source: domain and split, ``"safety/ood"``.
    extra_info: the row's ``extra_info``.
    judged: what a judge reads as ``{response}``: all of it, but for a native thought. ``None``: all of it.
    """

    response: str
    answer: str | None
    format_ok: bool
    ground_truth: str
    data_source: str
    extra_info: Mapping[str, Any]
    judged: str | None = None

    @cached_property
    def extras(self) -> dict[str, Any]:
        """The row's free-form part, decoded from the JSON string ``extra_info["extras"]``.

        Raises:
            RewardError: it is not a JSON object.
        """
        raw = self.extra_info.get("extras") or "{}"
        try:
            decoded = raw if isinstance(raw, Mapping) else json.loads(raw)
        except (TypeError, ValueError) as error:
            raise RewardError(
                f"{self.where}: extra_info.extras is not JSON ({error}); rebuild the data file"
            ) from error
        if not isinstance(decoded, Mapping):
            raise RewardError(f"{self.where}: extra_info.extras must be a JSON object, got {type(decoded).__name__}")
        return dict(decoded)

    @cached_property
    def fields(self) -> dict[str, str]:
        """What a judge's template may use, none of it trusted; ``answer`` is empty if there is none."""
        return {
            **{key: str(value) for key, value in self.extras.items()},
            "response": self.response if self.judged is None else self.judged,
            "answer": self.answer or "",
            "ground_truth": self.ground_truth,
        }

    @property
    def where(self) -> str:
        """Names the row in messages."""
        info = self.extra_info
        return f"row {info.get('index', '?')} (intent {info.get('intent_id', '?')}) of {str(self.data_source)!r}"


@dataclass(frozen=True)
class Verdict:
    """A decision. reward: the task reward, without format. right: whether it counts as right in accuracy."""

    reward: float
    right: bool


Outcome = Verdict | float | Literal["abstain"]
"""What a reward function may return. A plain number counts as right if it is the maximum of the range."""


class ThrottledLog:
    """Logs warnings by kind, each at most every 30 s; the next one says how many were left out."""

    def __init__(self, logger: logging.Logger, interval_s: float = 30.0) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, kind: str, message: str) -> None:
        """Log ``message`` unless one of the same kind was logged within the interval."""
        now = time.monotonic()
        if now - self._last.get(kind, -self._interval_s) < self._interval_s:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._last[kind] = now
        count = self._left_out.pop(kind, 0)
        self._logger.warning("%s%s", message, f" (and {count} more like it)" if count else "")
