from __future__ import annotations

from hypothesis import settings

# Timing is not what these tests test, and a busy machine would fail them.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
