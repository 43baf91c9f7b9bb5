from __future__ import annotations

import pytest
from hypothesis import settings

from verl_air.data import framings

# Timing is not what these tests test, and a busy machine would fail them.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    registry = dict(framings._registry())
    monkeypatch.setattr(framings, "_registry", lambda: registry)
