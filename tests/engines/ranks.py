"""Worker processes that stay alive between tests: starting verl takes some ten seconds, a case takes one.

Each process is one rank of a gloo world (of NCCL on a GPU). The ranks are verl's own: the environment variables that
Ray's worker group would set, and verl's function that makes the process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

START_SECONDS = 300.0


class Ranks:
    """``size`` processes that run the same function at the same time.

    A failure ends all of them, since the others may be waiting in a collective; the next call starts new ones.
    """

    def __init__(self, size: int, platform: str = "cpu") -> None:
        self.size = size
        self.platform = platform
        self._pools: list[ProcessPoolExecutor] = []
        self._pids: list[int] = []

    def run(self, function: Callable[..., Any], *args: Any, seconds: float = 120.0) -> list[Any]:
        """Call a module-level function on every rank and return what each returned, by rank.

        Raises:
            TimeoutError: the time was up.
            BrokenProcessPool: a rank died.
            Exception: what a rank raised, with the rank's traceback.
        """
        try:
            if not self._pools:
                self._start()
            futures = [pool.submit(function, *args) for pool in self._pools]
            done, waiting = wait(futures, timeout=seconds, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            if waiting:
                ranks = [rank for rank, future in enumerate(futures) if future in waiting]
                raise TimeoutError(f"ranks {ranks} of {self.size} did not answer within {seconds:g} s")
        except BaseException:
            self.close()
            raise
        return [future.result() for future in futures]

    def _start(self) -> None:
        # Spawned, not forked: the parent may hold threads, and a rank must import verl with its own environment.
        context = get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
        store = str(Path(self._folder.name) / "store")
        self._pools = [ProcessPoolExecutor(max_workers=1, mp_context=context) for _ in range(self.size)]
        begun = [pool.submit(_become, rank, self.size, store, self.platform) for rank, pool in enumerate(self._pools)]
        self._pids = [future.result(START_SECONDS) for future in begun]

    def close(self) -> None:
        """End the processes; they hold nothing that is worth an orderly end."""
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pool in self._pools:
            pool.shutdown(wait=False)
        self._pools, self._pids = [], []


def _become(rank: int, size: int, store: str, platform: str) -> int:
    """Make this process a rank; returns its pid."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK="0",
        MASTER_ADDR="127.0.0.1",  # verl's Worker wants both; the rendezvous is the file
        MASTER_PORT="0",
        DIST_INIT_METHOD=f"file://{store}",
        VERL_PLATFORM=platform,
        OMP_NUM_THREADS="1",
        TORCHDYNAMO_DISABLE="1",
    )
    import torch

    torch.set_num_threads(1)
    return os.getpid()
