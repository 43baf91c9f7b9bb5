"""Keeps what other packages print off the terminal, so that a command prints its own lines only.

Within :func:`own_lines_only` the file descriptors 1 and 2 lead to a buffer, and so do the warnings and log records of
other packages, and whatever runs in :func:`of_other_packages`. ``sys.stdout`` and ``sys.stderr`` stay with the
terminal. The buffer is shown when a command ends with an exception; an ``AirError`` needs no more than its one line.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from verl_air.errors import AirError

_PACKAGE = str(Path(__file__).parent.parent)


@contextmanager
def own_lines_only() -> Iterator[None]:
    """Run a command whose terminal belongs to it alone."""
    with ExitStack() as stack:
        buffer = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
        terminal = _stream_of_its_own(sys.stderr, stack)
        stack.enter_context(redirect_stdout(_stream_of_its_own(sys.stdout, stack)))
        stack.enter_context(redirect_stderr(terminal))
        for descriptor in (1, 2):
            _redirect(descriptor, buffer.fileno(), stack)
        _redirect_warnings_and_logs(stack)
        try:
            yield
        except (AirError, SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            buffer.flush()
            buffer.seek(0)
            terminal.write(buffer.read())
            raise


@contextmanager
def of_other_packages() -> Iterator[None]:
    """For an import, or a call, that prints in Python: its ``sys.stdout`` and ``sys.stderr`` are the buffer as well."""
    assert sys.__stdout__ is not None
    assert sys.__stderr__ is not None
    with redirect_stdout(sys.__stdout__), redirect_stderr(sys.__stderr__):
        try:
            yield
        finally:
            sys.__stdout__.flush()
            sys.__stderr__.flush()


def _stream_of_its_own(stream: TextIO, stack: ExitStack) -> TextIO:
    """The same target through a descriptor that is not redirected; a stream that has none, such as a test's, as is."""
    stream.flush()
    try:
        descriptor = os.dup(stream.fileno())
    except io.UnsupportedOperation:
        return stream
    return stack.enter_context(open(descriptor, "w", encoding=stream.encoding, errors=stream.errors, buffering=1))


def _redirect(descriptor: int, target: int, stack: ExitStack) -> None:
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)

    def restore() -> None:
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()  # what they hold is for the buffer
        os.dup2(saved, descriptor)
        os.close(saved)

    stack.callback(restore)


def _redirect_warnings_and_logs(stack: ExitStack) -> None:
    """To ``sys.__stderr__``, which writes to descriptor 2, unless they are of this package."""
    show = warnings.showwarning

    def show_own(message: Any, category: Any, filename: str, *rest: Any, **named: Any) -> None:
        with ExitStack() as others:
            if not filename.startswith(_PACKAGE):
                others.enter_context(of_other_packages())
            show(message, category, filename, *rest, **named)

    warnings.showwarning = show_own
    stack.callback(setattr, warnings, "showwarning", show)
    if "VLLM_LOGGING_STREAM" not in os.environ:
        os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.__stderr__"
        stack.callback(os.environ.pop, "VLLM_LOGGING_STREAM", None)
    for name, stream in (("", sys.__stderr__), ("verl_air", sys.stderr)):
        logger, handler = logging.getLogger(name), logging.StreamHandler(stream)
        logger.addHandler(handler)
        stack.callback(logger.removeHandler, handler)
    ours = logging.getLogger("verl_air")
    stack.callback(setattr, ours, "propagate", ours.propagate)
    ours.propagate = False
