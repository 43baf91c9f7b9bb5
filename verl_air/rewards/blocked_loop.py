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

_watched = False
_set_at = 0.0
_beats: set[asyncio.Task[None]] = set()


def end_when_blocked(_: object = None) -> None:
    """Watch this process from its next :func:`note_progress` on. The argument is the actor that Ray passes."""
    global _watched
    _watched = True


def note_progress() -> None:
    """In the event loop: it is running. From the first time on a task says so each second."""
    global _set_at
    now = time.monotonic()
    if not _watched or now - _set_at < _BEAT_S:
        return
    _set_at = now
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    if not _beats:
        _beats.add(asyncio.get_running_loop().create_task(_beat()))


async def _beat() -> None:
    while True:
        await asyncio.sleep(_BEAT_S)
        note_progress()
