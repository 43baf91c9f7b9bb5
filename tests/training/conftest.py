from __future__ import annotations

import pytest

from tests.training.support import MemoryQueue


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> MemoryQueue:
    """In place of TransferQueue."""
    return MemoryQueue(monkeypatch)
