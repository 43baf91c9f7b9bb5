"""Run the training, watch the nodes, pass signals and the exit status on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

NODE_LOST = 75  # EX_TEMPFAIL of sysexits.h: the same command may work when it is tried again
GRACE_S = 30.0
NOTICE_S = 30.0  # Ray declares a silent node dead after five checks, three seconds apart


def supervise(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    lost: Callable[[], Sequence[str]],
    report: Callable[[str], None],
    every: float = 5.0,
) -> int:
    """Run ``command`` to its end, and stop it when a node is lost.

    A run whose node has died often does not end by itself: collectives wait for a rank that is gone.

    Args:
        command: what to run; it gets a process group of its own and writes to this process's ``sys.stdout`` and
            ``sys.stderr``.
        environment: its environment.
        lost: names the nodes that have left the cluster.
        report: takes messages for the user.
        every: seconds between two checks of the nodes.

    Returns:
        The command's exit status; 128 + the signal's number if this process or the command was ended by one;
        ``NODE_LOST`` if a node was lost.
    """
    process = subprocess.Popen(
        command, env=dict(environment), start_new_session=True, stdout=sys.stdout, stderr=sys.stderr
    )
    checked = time.monotonic()
    try:
        with _signals() as received:
            while process.poll() is None:
                if received:
                    report(f"{received[0].name} received; stopping the training")
                    return 128 + received[0]
                if time.monotonic() - checked >= every:
                    if gone := lost():
                        report(f"lost during the training: {', '.join(gone)}. Stopping it.")
                        return NODE_LOST
                    checked = time.monotonic()
                time.sleep(0.5)
    finally:
        _end(process)
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    if status == 0:
        return 0
    report(f"the training ended with status {status}; asking Ray whether a node is lost (up to {NOTICE_S:.0f} s)")
    deadline = time.monotonic() + NOTICE_S
    while not (gone := lost()) and time.monotonic() < deadline:
        time.sleep(1.0)
    if gone:
        report(f"lost during the training: {', '.join(gone)}")
        return NODE_LOST
    return status


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: SIGTERM, then SIGKILL."""
    for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)


@contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGTERM, SIGINT and SIGHUP instead of ending at once."""
    received: list[signal.Signals] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number))

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
