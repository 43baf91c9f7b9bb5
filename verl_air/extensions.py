"""Third-party packages that register rewards or regularizers: the entry-point group ``verl_air.plugins``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

PLUGIN_GROUP = "verl_air.plugins"


@cache
def load_plugins() -> tuple[str, ...]:
    """Import every installed plugin once, so that it registers what it brings; return their names.

    A plugin that fails to import is a fault of the installation: its exception is raised, never swallowed.
    """
    found = sorted(entry_points(group=PLUGIN_GROUP), key=lambda entry_point: entry_point.name)
    for entry_point in found:
        entry_point.load()
    return tuple(entry_point.name for entry_point in found)
