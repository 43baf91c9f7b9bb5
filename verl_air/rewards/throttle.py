"""A logger for faults that may come in thousands: each kind is told at most twice a minute, with a count."""

from __future__ import annotations

import logging
import time

_INTERVAL_S = 30.0


class ThrottledLog:
    """Logs warnings by kind; between two lines of one kind it only counts."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def warning(self, kind: str, message: str) -> None:
        """Log ``message`` unless one of the same kind was logged just before."""
        now = time.monotonic()
        if now - self._last.get(kind, -_INTERVAL_S) < _INTERVAL_S:
            self._held[kind] = self._held.get(kind, 0) + 1
            return
        held = self._held.pop(kind, 0)
        self._last[kind] = now
        self._logger.warning("%s%s", message, f" (and {held} more like it)" if held else "")
