"""Framings: templates that word a request anew; each belongs to a family.

Families, not single framings, are divided between training and OOD: two framings of one family are too much alike for
one of them to test what the other taught. The shipped ones are the YAML files beside this module. Add your own with
such a file (``--framings FILE``, :func:`load_framings`) or in code (:func:`register_framing`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from verl_air.data.framings.transforms import TRANSFORMS, register_transform
from verl_air.data.schema import Message
from verl_air.errors import DataError

__all__ = [
    "OOD_FAMILIES",
    "Framing",
    "framings_for",
    "load_framings",
    "read_framings",
    "register_framing",
    "register_transform",
]

OOD_FAMILIES: frozenset[str] = frozenset({"fiction", "multi_turn", "obfuscation", "system_prompt"})
"""Held out for OOD unless told otherwise; every other family is for training and ID."""

_SLOT = re.compile(r"\{(\w+)\}")
_ROLES = ("system", "user", "assistant")
_KEYS = {"name", "family", "prompt", "messages", "transform", "domains"}


@dataclass(frozen=True)
class Framing:
    """One template.

    name: unique; the ``context`` of the rows it makes.
    family: the unit of the train/OOD division.
    messages: pairs of role and template; ``{request}`` stands for the request. The last message is the user's.
    transform: name of a text disguise that the request goes through first.
    domains: where it may be used; empty: everywhere.
    """

    name: str
    family: str
    messages: tuple[tuple[str, str], ...]
    transform: str = ""
    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault:
            raise DataError(f"framing {self.name!r}: {fault}")

    def _fault(self) -> str:
        if not self.name or not self.family:
            return "name and family must not be empty"
        if not self.messages or self.messages[-1][0] != "user":
            return "the last message must be the user's"
        if unknown := sorted({role for role, _ in self.messages} - set(_ROLES)):
            return f"unknown role {unknown[0]!r}; known: {', '.join(_ROLES)}"
        if not any("{request}" in template for _, template in self.messages):
            return "no message holds {request}"
        if self.transform not in TRANSFORMS:
            return f"unknown transform {self.transform!r}; known: {', '.join(sorted(filter(None, TRANSFORMS)))}"
        return ""

    def render(self, slots: Mapping[str, str]) -> list[Message]:
        """Put the words in.

        Raises:
            DataError: a template names a slot that this domain does not fill.
        """

        def fill(match: re.Match[str]) -> str:
            slot = match[1]
            if slot not in slots:
                raise DataError(
                    f"framing {self.name!r}: no slot {{{slot}}}; this domain has {', '.join(sorted(slots))}"
                )
            return TRANSFORMS[self.transform](slots[slot]) if slot == "request" else slots[slot]

        return [Message(role=role, content=_SLOT.sub(fill, template).strip()) for role, template in self.messages]


_REGISTRY: dict[str, Framing] = {}


def register_framing(framing: Framing) -> Framing:
    """Add a framing.

    Raises:
        DataError: the name is taken by another framing.
    """
    existing = _all().setdefault(framing.name, framing)
    if existing != framing:
        raise DataError(f"framing {framing.name!r} is already registered (family {existing.family!r}); rename yours")
    return framing


def load_framings(path: str | os.PathLike[str]) -> list[Framing]:
    """Read a YAML file and register what it holds.

    Raises:
        DataError: see :func:`read_framings` and :func:`register_framing`.
    """
    return [register_framing(framing) for framing in read_framings(Path(path))]


def framings_for(domain: str) -> list[Framing]:
    """The framings of a domain, by name."""
    return sorted((f for f in _all().values() if not f.domains or domain in f.domains), key=lambda f: f.name)


def read_framings(path: Path) -> list[Framing]:
    """Read a YAML list of framings without registering them.

    Raises:
        DataError: the file is missing or malformed; the message names the entry.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot read framings ({error})") from error
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a list of framings; see docs/data.md")
    return [_parse(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, start=1)]


def _parse(entry: Any, where: str) -> Framing:
    if not isinstance(entry, dict) or not {"name", "family"} <= set(entry):
        raise DataError(f"{where}: expected a mapping with at least name, family, and prompt or messages")
    if unknown := sorted(set(entry) - _KEYS):
        raise DataError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    if ("prompt" in entry) == ("messages" in entry):
        raise DataError(f"{where}: give either prompt or messages")
    turns = entry.get("messages") or [{"user": entry.get("prompt")}]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and len(turn) == 1 for turn in turns):
        raise DataError(f"{where}: messages must be a list of single pairs such as `- user: ...`")
    messages = tuple((str(role), str(text)) for turn in turns for role, text in turn.items())
    domains = entry.get("domains", [])
    if not isinstance(domains, list):
        raise DataError(f"{where}: domains must be a list")
    try:
        return Framing(
            str(entry["name"]),
            str(entry["family"]),
            messages,
            str(entry.get("transform", "")),
            tuple(map(str, domains)),
        )
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


@cache
def _load_shipped() -> None:
    for path in sorted(Path(__file__).parent.glob("*.yaml")):
        for framing in read_framings(path):
            _REGISTRY[framing.name] = framing


def _all() -> dict[str, Framing]:
    _load_shipped()
    return _REGISTRY
