"""A process whose event loop is blocked ends, with a traceback of where, instead of being waited for without end.

verl calls reward functions in one event loop per worker. A function that never gives it back stops all rows there, and
no deadline is looked at. The timer is faulthandler's, a thread in C: it also ends a process whose function holds the
interpreter, as a regular expression that backtracks does. A queue of short calls is no blocked loop.
"""

from __future__ import annotations

import asyncio
import faulthandler
import time

LIMIT_S = 80.0
"""For one piece of work between two awaits."""
_BEAT_S = 1.0

_set_at: float | None = None
_tasks: set[asyncio.Task[None]] = set()


def end_when_blocked(_: object = None) -> None:
    """Watch the running event loop, until the process ends. The argument is the actor that Ray passes."""
    global _set_at
    _set_at = 0.0
    _tasks.add(asyncio.get_running_loop().create_task(_beat()))


def note_progress() -> None:
    """Start the time anew, in a process that is watched."""
    global _set_at
    now = time.monotonic()
    if _set_at is not None and now - _set_at >= _BEAT_S:
        _set_at = now
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)


async def _beat() -> None:
    while True:
        note_progress()
        await asyncio.sleep(_BEAT_S)
