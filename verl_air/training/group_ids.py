"""The name a prompt carries through verl's queues, from which its meta-group can be read.

verl keys a trajectory as ``{uid}_{session}_{index}`` and splits on "_", so a uid must not hold one. Ours are
``{group}-{position}``: sixteen random bytes in hex for the meta-group, and the prompt's position in it.
"""

from __future__ import annotations

import uuid


def new_group_uids(group_size: int) -> list[str]:
    """Uids for the prompts of one fresh meta-group, in order."""
    group = uuid.uuid4().hex
    return [f"{group}-{position}" for position in range(group_size)]


def group_of(uid: str) -> str:
    """The meta-group of a prompt."""
    return uid.rpartition("-")[0]


def uid_of(key: str) -> str:
    """The prompt of a trajectory key."""
    return key.split("_", 1)[0]


def session_of(key: str) -> str:
    """The completion a trajectory key belongs to: an agent loop may put out several trajectories of one session."""
    return key.rsplit("_", 1)[0]
