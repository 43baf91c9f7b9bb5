"""A judge that fails abstains; when it fails too often, the run stops rather than train on what is left."""

from __future__ import annotations

from collections import deque

import numpy as np

from verl_air.errors import RewardError
from verl_air.training.trajectories import Trajectories


class AbstentionGuard:
    """Watches the share of open rows that were abstained over the last steps.

    Args:
        max_rate: ``air.max_abstain_rate``.
        window: ``air.abstain_window``, in steps.
    """

    def __init__(self, max_rate: float, window: int) -> None:
        self._max_rate = max_rate
        self._counts: deque[tuple[int, int]] = deque(maxlen=window)

    def update(self, trajectories: Trajectories) -> None:
        """Count one step.

        Raises:
            RewardError: the rate over the window is above the limit.
        """
        open_N = trajectories.final_N & ~trajectories.padding_N & ~trajectories.is_anchor_N
        self._counts.append((int(np.sum(trajectories.abstained_N & open_N)), int(np.sum(open_N))))
        abstained, total = (sum(column) for column in zip(*self._counts, strict=True))
        if total and abstained / total > self._max_rate:
            raise RewardError(
                f"the judge abstained on {abstained} of {total} open rows ({abstained / total:.0%}) in the last "
                f"{len(self._counts)} step(s); air.max_abstain_rate is {self._max_rate:.0%}. Look for the reasons that "
                "the reward workers logged (a judge server that is down or overloaded, a verdict word that it does not "
                "return), mend them, and resume from the last checkpoint."
            )
