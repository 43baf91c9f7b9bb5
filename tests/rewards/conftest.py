"""The fixture that several files share."""

from tests.rewards.misbehaving import server

__all__ = ["server"]
