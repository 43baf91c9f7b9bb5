"""Work that may never end, in child processes that are killed when their time is up.

A signal handler does not run during a computation in C, and a thread cannot be killed. So each of a few threads owns
one warm child and waits for its answer with a deadline. The deadline is one of processor time: the child's own timer
ends it, so that no answer is lost because the machine is busy. By the clock a call takes 1.6 times the deadline at
most, if the child sleeps or gets no core. Neither waiting for a free child nor starting one counts.

Not pebble, whose children import the parent's main module (with torch 273 MB per child, here 88 MB) and all start with
the first call; a call's p99 was 55 ms, here 0.5 ms (pebble 5.2.3, two cores).
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

_START_LIMIT_S = 60.0
_CLOCK_PER_PROCESSOR_TIME = 1.6  # well below 2: a busy machine at most doubles the time of a call that is in vain


class WorkerTimeoutError(RuntimeError):
    """The child was killed: its time was up."""


class WorkerPool:
    """Calls ``module:function`` in warm child processes; arguments and results are pickled.

    Args:
        target: ``"module:function"``. The function should import what it needs at the top of its module.
        size: maximum number of children; each is started by the first call that needs it.
        memory_mb: address space per child; beyond it, Python raises MemoryError there.
    """

    def __init__(self, target: str, *, size: int = 2, memory_mb: int = 4096) -> None:
        self._target = target
        self._memory_mb = memory_mb
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(max_workers=size, thread_name_prefix="verl-air-worker")

    async def call(self, deadline_s: float, *arguments: Any) -> Any:
        """Run the function in a free child.

        Raises:
            WorkerTimeoutError: it took longer than ``deadline_s`` of processor time, or 1.6 times that by the clock,
                and was killed.
            RuntimeError: it raised, or the child died.
        """
        return await asyncio.wrap_future(self._threads.submit(self._call, deadline_s, arguments))

    def _call(self, deadline_s: float, arguments: tuple[Any, ...]) -> Any:
        try:
            return self._child().ask(arguments, deadline_s)
        except WorkerTimeoutError:
            self._threads.submit(self._child)  # its successor starts while nobody waits for it
            raise

    def _child(self) -> _Child:
        """The child of this thread."""
        child: _Child | None = getattr(self._local, "child", None)
        if child is None or not child.alive:
            child = self._local.child = _Child(self._target, self._memory_mb)
        return child


class _Child:
    """One child process and the pipe to it; used by one thread only."""

    def __init__(self, target: str, memory_mb: int) -> None:
        self._target = target
        self._pipe, remote = Pipe()
        with remote:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, target, str(memory_mb), str(remote.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[remote.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        self._ready = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, arguments: tuple[Any, ...], deadline_s: float) -> Any:
        if not self._ready:
            status, value = self._receive(_START_LIMIT_S)
            if status != "ready":
                self._end()
                raise RuntimeError(f"{self._target}: the child cannot start: {value}")
            self._ready = True
        try:
            self._pipe.send((deadline_s, arguments))
        except OSError as error:
            self._end()
            raise RuntimeError(f"{self._target}: the child died ({error})") from error
        status, value = self._receive(deadline_s)
        if status != "ok":
            raise RuntimeError(f"{self._target}: {value}")
        return value

    def _receive(self, deadline_s: float) -> tuple[str, Any]:
        limit_s = deadline_s * _CLOCK_PER_PROCESSOR_TIME
        try:
            if self._pipe.poll(limit_s):
                return self._pipe.recv()
            cause = None
        except (EOFError, OSError) as error:
            cause = error
        self._end()
        code = self._process.returncode
        if cause and code != -signal.SIGPROF:
            raise RuntimeError(f"{self._target}: the child died (exit code {code})") from cause
        raise WorkerTimeoutError(
            f"{self._target}: killed after {deadline_s:g} s of processor time, or {limit_s:g} s by the clock"
        ) from cause

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.close()


def _serve(target: str, memory_mb: int, descriptor: int, parent: int) -> None:
    """The child: answer every call, until the parent closes the pipe or dies."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pipe = Connection(descriptor)
    try:
        module, _, name = target.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - reported to the parent, which raises it
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
        return
    pipe.send(("ready", None))
    while True:
        try:
            deadline_s, arguments = pipe.recv()
        except EOFError:
            return
        try:
            signal.setitimer(signal.ITIMER_PROF, deadline_s)  # what nobody handles ends the process
            result = function(*arguments)
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            pipe.send(("ok", result))
        except Exception as error:  # noqa: BLE001 - reported to the parent, which raises it
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            pipe.send(("error", f"{type(error).__name__}: {str(error)[:500]}"))


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, even in the middle of a computation, when no closed pipe is seen."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    _serve(sys.argv[1], *map(int, sys.argv[2:]))
