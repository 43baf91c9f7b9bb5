"""Faults of the installed verl that stand in the way of a documented setting, mended from outside.

Each has a contract test that fails once verl has mended it itself; then it goes.
"""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any


class _AcceptsFlush(logging.LoggerAdapter):
    """A logger that can be called like ``print``."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        kwargs.pop("flush", None)
        return msg, kwargs


def let_logger_flush(module: ModuleType) -> None:
    """``actor_rollout_ref.hybrid_engine: false`` ends verl's ``separate_async`` trainer with a TypeError.

    ``trainer_separate_async._setup`` calls ``logger.info(..., flush=True)``; a logger knows no ``flush``.
    """
    if not isinstance(module.logger, _AcceptsFlush):
        module.logger = _AcceptsFlush(module.logger, {})  # type: ignore[attr-defined]
