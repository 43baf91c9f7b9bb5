"""A progress bar on the terminal; nothing where the output goes to a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def with_progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Pass items through and show how many of ``total`` have passed."""
    yield from tqdm(items, desc=what, total=total, disable=None, leave=False)
