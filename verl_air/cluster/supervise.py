"""Run the training, watch the nodes, pass signals and the exit status on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

NODE_LOST = 75  # EX_TEMPFAIL of sysexits.h: the same command may work when it is tried again
GRACE_S = 30.0
NOTICE_S = 30.0  # Ray takes a silent node for dead after five checks, three seconds apart


def supervise(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    lost: Callable[[], Sequence[str]],
    tell: Callable[[str], None],
    every: float = 5.0,
) -> int:
    """Run ``command`` to its end, and stop it when a node is lost.

    A run whose node has died often does not end by itself: collectives wait for a rank that is gone.

    Args:
        command: what to run; it gets a process group of its own.
        environment: its environment.
        lost: names the nodes that have left the cluster.
        tell: takes messages for the user.
        every: seconds between two looks at the nodes.

    Returns:
        The command's exit status; 128 + the signal's number if this process or the command was ended by one;
        ``NODE_LOST`` if a node was lost.
    """
    process = subprocess.Popen(command, env=dict(environment), start_new_session=True)
    looked = time.monotonic()
    try:
        with _signals() as received:
            while process.poll() is None:
                if received:
                    tell(f"{received[0].name} received; stopping the training")
                    return 128 + received[0]
                if time.monotonic() - looked >= every:
                    if gone := lost():
                        tell(f"lost during the training: {', '.join(gone)}. Stopping it.")
                        return NODE_LOST
                    looked = time.monotonic()
                time.sleep(0.5)
    finally:
        _end(process)
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    if status == 0:
        return 0
    tell(f"the training ended with status {status}; asking Ray whether a node is lost (up to {NOTICE_S:.0f} s)")
    if gone := _wait_for(lost, NOTICE_S):
        tell(f"lost during the training: {', '.join(gone)}")
        return NODE_LOST
    return status


def _wait_for(lost: Callable[[], Sequence[str]], patience: float) -> Sequence[str]:
    deadline = time.monotonic() + patience
    while not (gone := lost()) and time.monotonic() < deadline:
        time.sleep(1.0)
    return gone


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: politely, then not."""
    for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)


@contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGTERM, SIGINT and SIGHUP instead of dying of them."""
    received: list[signal.Signals] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number))

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
