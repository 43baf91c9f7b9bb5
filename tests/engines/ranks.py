"""Worker processes that stay alive between tests: starting verl takes some ten seconds, a case takes one.

Each process is one rank of a gloo world (of NCCL on a GPU). The ranks are verl's own: the environment variables that
Ray's worker group would set, and verl's function that makes the process group.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

START_SECONDS = 300.0


class RankError(AssertionError):
    """A rank raised, died or did not answer; the message holds its traceback."""


class Ranks:
    """``size`` processes that run the same function at the same time.

    A failure ends all of them, since the others may be waiting in a collective; the next call starts new ones.
    """

    def __init__(self, size: int, platform: str = "cpu") -> None:
        self.size = size
        self.platform = platform
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, function: Callable[..., Any], *args: Any, seconds: float = 120.0) -> list[Any]:
        """Call a module-level function on every rank and return what each returned, by rank.

        Raises:
            RankError: any rank failed, or the time was up.
        """
        if not self._processes:
            self._start()
            seconds += START_SECONDS
        message = pickle.dumps((function, args))
        for connection in self._connections:
            connection.send_bytes(message)
        try:
            return self._collect(time.monotonic() + seconds)
        except BaseException:
            self.close()
            raise

    def _collect(self, deadline: float) -> list[Any]:
        answers: dict[int, Any] = {}
        waiting = {connection: rank for rank, connection in enumerate(self._connections)}
        while waiting:
            ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RankError(f"ranks {sorted(waiting.values())} of {self.size} did not answer in time")
            for connection in ready:
                rank = waiting.pop(connection)  # type: ignore[call-overload]
                try:
                    good, answer = pickle.loads(connection.recv_bytes())  # type: ignore[union-attr]
                except EOFError:
                    raise RankError(f"rank {rank} of {self.size} died") from None
                if not good:
                    raise RankError(f"rank {rank} of {self.size} raised:\n{answer}")
                answers[rank] = answer
        return [answers[rank] for rank in range(self.size)]

    def _start(self) -> None:
        # Spawned, not forked: the parent may hold threads, and a rank must import verl with its own environment.
        context = get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
        rendezvous = Path(self._folder.name) / "store"
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, self.size, str(rendezvous), self.platform))
            process.daemon = True
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)

    def close(self) -> None:
        """End the processes; they hold nothing that is worth an orderly end."""
        for process in self._processes:
            process.kill()
            process.join()
        for connection in self._connections:
            connection.close()
        self._processes, self._connections = [], []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _serve(connection: Connection, rank: int, size: int, rendezvous: str, platform: str) -> None:
    """Answer calls until the other end closes."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK="0",
        MASTER_ADDR="127.0.0.1",  # verl's Worker wants both; the rendezvous is the file
        MASTER_PORT="0",
        DIST_INIT_METHOD=f"file://{rendezvous}",
        VERL_PLATFORM=platform,
        OMP_NUM_THREADS="1",
        TORCHDYNAMO_DISABLE="1",
    )
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        try:
            function, args = pickle.loads(message)
            answer = (True, function(*args))
        except Exception:  # noqa: BLE001 - whatever it was, the test must see it
            answer = (False, traceback.format_exc())
        connection.send_bytes(pickle.dumps(answer))
