"""Work that may never end, in child processes that are really killed when their time is up.

A signal does not reach a computation in C and only works in the main thread; a thread cannot be killed at all. So each
of a few threads owns one warm child and waits for its answer with a deadline. The clock starts when the child, already
warm, is handed the work: waiting for a free child and starting one do not count.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_START_LIMIT_S = 120.0


class WorkerTimeoutError(RuntimeError):
    """The child was killed: its time was up."""


class WorkerPool:
    """Calls ``module:function`` in warm child processes; arguments and results are JSON.

    Args:
        target: ``"module:function"``. The function should import what it needs at its module's top.
        size: children at most; each is started by the first call that needs it.
        memory_mb: address space of a child; beyond it, Python raises MemoryError there.
    """

    def __init__(self, target: str, *, size: int = 2, memory_mb: int = 4096) -> None:
        self._target = target
        self._memory_mb = memory_mb
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(max_workers=size, thread_name_prefix="verl-air-worker")

    async def call(self, deadline_s: float, *arguments: Any) -> Any:
        """Run the function in a free child.

        Raises:
            WorkerTimeoutError: it took longer than ``deadline_s`` and was killed.
            RuntimeError: it raised, or the child died.
        """
        return await asyncio.wrap_future(self._threads.submit(self._call, deadline_s, arguments))

    def _call(self, deadline_s: float, arguments: tuple[Any, ...]) -> Any:
        child = getattr(self._local, "child", None)
        if child is None or not child.alive:
            child = self._local.child = _Child(self._target, self._memory_mb)
        status, value = child.ask(arguments, deadline_s)
        if status != "ok":
            raise RuntimeError(f"{self._target}: {value}")
        return value


class _Child:
    """One child process and its two pipes; used by one thread only."""

    def __init__(self, target: str, memory_mb: int) -> None:
        self._target = target
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, target, str(memory_mb), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._rest = b""
        status, value = self._read_line(time.monotonic() + _START_LIMIT_S, _START_LIMIT_S)
        if status != "ready":
            self._end()
            raise RuntimeError(f"{target}: the child cannot start: {value}")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, arguments: tuple[Any, ...], deadline_s: float) -> tuple[str, Any]:
        assert self._process.stdin is not None
        line = json.dumps(arguments).encode() + b"\n"
        end = time.monotonic() + deadline_s
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError as error:
            self._end()
            raise RuntimeError(f"{self._target}: the child died ({error})") from error
        return self._read_line(end, deadline_s)

    def _read_line(self, end: float, limit_s: float) -> tuple[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            if not self._selector.select(max(0.0, end - time.monotonic())):
                self._end()
                raise WorkerTimeoutError(f"{self._target}: killed after {limit_s:g} s")
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                self._end()
                raise RuntimeError(f"{self._target}: the child died (exit code {self._process.returncode})")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        status, value = json.loads(line)
        return status, value

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not yet written is of no use to a dead child
                    continue


def _serve(target: str, memory_mb: int, parent: int) -> None:
    """The child: answer one line of JSON with one line of JSON, until the parent closes the pipe or dies."""
    import resource

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    def answer(status: str, value: Any) -> None:
        answers.write(json.dumps([status, value]) + "\n")
        answers.flush()

    try:
        module, _, name = target.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
        answer("failed", f"{type(error).__name__}: {error}")
        return
    answer("ready", None)
    for line in sys.stdin:
        try:
            result = "ok", function(*json.loads(line))
        except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
            result = "error", f"{type(error).__name__}: {str(error)[:500]}"
        answer(*result)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, even in the middle of a computation, when no closed pipe is seen."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
