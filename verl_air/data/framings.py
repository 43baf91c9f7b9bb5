"""Framings: templates that reword a request; each belongs to a family. And the instruction that ends every prompt.

Families, not single framings, are divided between training and OOD: two framings of one family are too similar for one
of them to test what the other taught. The shipped ones are the files ``framings_*.yaml`` in this folder.
"""

from __future__ import annotations

import base64
import codecs
import json
import os
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from verl_air.data.intents import Exclusions, seeded
from verl_air.data.schema import PromptMessage, read_rows
from verl_air.errors import DataError
from verl_air.rewards import Style

OOD_FAMILIES: frozenset[str] = frozenset({"fiction", "multi_turn", "obfuscation", "system_prompt"})
"""Held out for OOD unless the user names others; every other family is for training and ID."""

BOXED_DOMAINS = frozenset({"math"})
"""Domains whose answer is also in a box (the paper's format reward for mathematics)."""

INSTRUCTIONS: Mapping[Style, str] = {
    "think_answer": "First think inside <think> and </think>. Then write {what} inside <answer> and </answer>. "
    "Write nothing outside these tags.",
    "think": "Answer with {what}.",
    "plain": "Answer with {what}.",
}
_STEP_BY_STEP = "Reason step by step, and end with {what}."  # a boxed answer can be found behind its derivation

TRANSFORMS: dict[str, Callable[[str], str]] = {
    "": lambda text: text,
    "alternating_case": lambda text: "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(text)),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "leet": lambda text: text.translate(str.maketrans("aeiostAEIOST", "431057431057")),
    "reversed_words": lambda text: " ".join(reversed(text.split())),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "spaced": lambda text: "   ".join(" ".join(word) for word in text.split()),
    "underscored": lambda text: "_".join(text.split()),
}
"""What a framing of the family ``obfuscation`` may do to the request before it is filled in."""

_SLOT = re.compile(r"\{(\w+)\}")
_ROLES = ("system", "user", "assistant")
_KEYS = {"name", "family", "prompt", "messages", "transform", "domains"}


@dataclass(frozen=True)
class FramingTemplate:
    """One framing.

    name: unique; the ``context`` of the rows it makes.
    messages: pairs of role and template; ``{request}`` marks where the request goes. The last message is the user's.
    transform: name of a transform that is applied to the request first.
    domains: where it may be used; empty: everywhere.
    wild: found in the wild. Braces other than ``{request}`` are text, and families are divided between training and OOD
        without being named (:func:`ood_families`).
    """

    name: str
    family: str
    messages: tuple[tuple[str, str], ...]
    transform: str = ""
    domains: tuple[str, ...] = ()
    wild: bool = False

    def __post_init__(self) -> None:
        fault = ""
        if not self.name or not self.family:
            fault = "name and family must not be empty"
        elif not self.messages or self.messages[-1][0] != "user":
            fault = "the last message must be the user's"
        elif unknown := sorted({role for role, _ in self.messages} - set(_ROLES)):
            fault = f"unknown role {unknown[0]!r}; known: {', '.join(_ROLES)}"
        elif not any("{request}" in template for _, template in self.messages):
            fault = "no message contains {request}"
        elif self.transform not in TRANSFORMS:
            fault = f"unknown transform {self.transform!r}; known: {', '.join(sorted(filter(None, TRANSFORMS)))}"
        if fault:
            raise DataError(f"framing {self.name!r}: {fault}")

    def render(self, slots: Mapping[str, str]) -> list[PromptMessage]:
        """Fill the slots in; a :class:`DataError` if a template names one that this domain does not fill."""

        def fill(match: re.Match[str]) -> str:
            slot = match[1]
            if self.wild and slot != "request":
                return match[0]
            if slot not in slots:
                known = ", ".join(sorted(slots))
                raise DataError(f"framing {self.name!r}: no slot {{{slot}}}; this domain has {known}")
            return TRANSFORMS[self.transform](slots[slot]) if slot == "request" else slots[slot]

        return [PromptMessage(role=role, content=_SLOT.sub(fill, template).strip()) for role, template in self.messages]


@cache
def _registry() -> dict[str, FramingTemplate]:
    files = sorted(Path(__file__).parent.glob("framings_*.yaml"))
    return {framing.name: framing for file in files for framing in read_framings(file)}


def register_framing(framing: FramingTemplate) -> FramingTemplate:
    """Add a framing; a :class:`DataError` if another one has its name."""
    existing = _registry().setdefault(framing.name, framing)
    if existing != framing:
        raise DataError(f"framing {framing.name!r} is already registered (family {existing.family!r}); rename yours")
    return framing


def framings_for(domain: str) -> list[FramingTemplate]:
    """The framings of a domain, by name."""
    return sorted((f for f in _registry().values() if not f.domains or domain in f.domains), key=lambda f: f.name)


def load_framings(name: str | os.PathLike[str], exclusions: Exclusions | None = None) -> list[FramingTemplate]:
    """Read framings from a file and register them (:func:`register_framing`).

    Args:
        name: a YAML file (:func:`read_framings`), or one of templates found in the wild, with ``@COLUMN`` if a column
            says their family (:func:`~verl_air.data.wild_framings.read_wild_framings`).
        exclusions: counts the templates that are left out.
    """
    from verl_air.data.wild_framings import SUFFIXES, read_wild_framings

    file, _, column = (str(name), "", "") if Path(name).exists() else str(name).partition("@")
    path = Path(file)
    wild = path.suffix.lower() in SUFFIXES
    return [
        register_framing(f) for f in (read_wild_framings(path, column, exclusions) if wild else read_framings(path))
    ]


def ood_families(framings: Iterable[FramingTemplate], named: Iterable[str], seed: int) -> set[str]:
    """The families held out for OOD: those named, and a third of the wild ones if none of these is named."""
    wild = sorted({framing.family for framing in framings if framing.wild})
    held_out = set(named)
    if held_out.isdisjoint(wild):
        held_out |= set(seeded(seed, "wild families").sample(wild, round(len(wild) / 3)))
    return held_out


def read_framings(path: Path) -> list[FramingTemplate]:
    """Read a YAML list of framings without registering them; a :class:`DataError` names the entry at fault."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot read framings ({error})") from error
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a list of framings; see docs/data.md")
    framings = []
    for number, entry in enumerate(entries, start=1):
        try:
            framings.append(_parse(entry))
        except DataError as error:
            raise DataError(f"{path}, entry {number}: {error}") from error
    return framings


def _parse(entry: Any) -> FramingTemplate:
    if not isinstance(entry, dict) or not {"name", "family"} <= set(entry):
        raise DataError("expected a mapping with at least name, family, and prompt or messages")
    if unknown := sorted(set(entry) - _KEYS):
        raise DataError(f"unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    if ("prompt" in entry) == ("messages" in entry):
        raise DataError("give either prompt or messages")
    turns, domains = entry.get("messages") or [{"user": entry.get("prompt")}], entry.get("domains", [])
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and len(turn) == 1 for turn in turns):
        raise DataError("messages must be a list of single pairs such as `- user: ...`")
    if not isinstance(domains, list):
        raise DataError("domains must be a list")
    return FramingTemplate(
        name=str(entry["name"]),
        family=str(entry["family"]),
        messages=tuple((str(role), str(text)) for turn in turns for role, text in turn.items()),
        transform=str(entry.get("transform", "")),
        domains=tuple(map(str, domains)),
    )


def choose_framings(framings: Sequence[FramingTemplate], n: int, rng: random.Random) -> list[FramingTemplate]:
    """``n`` different framings; no family a second time before each had its turn."""
    families: dict[str, list[FramingTemplate]] = defaultdict(list)
    for framing in rng.sample(framings, len(framings)):
        families[framing.family].append(framing)
    chosen: list[FramingTemplate] = []
    while len(chosen) < n:
        left = [members for members in families.values() if members]
        chosen.extend(members.pop() for members in left[: n - len(chosen)])
    return chosen


def with_instruction(
    messages: str | Sequence[PromptMessage], what: str, domain: str, style: Style = "think_answer"
) -> list[PromptMessage]:
    """Append the instruction of a response style to the last user message.

    Args:
        messages: the last one is the user's; a plain string is one user message.
        what: what the answer is, e.g. ``"only the letter of your choice"``. Empty: a reply; the styles without tags
            then need no instruction.
        domain: decides whether the answer is boxed.
        style: how the answer is marked; :mod:`verl_air.rewards.format` reads the response.
    """
    if isinstance(messages, str):
        messages = [PromptMessage(role="user", content=messages)]
    *before, last = messages
    if last["role"] != "user":
        raise ValueError(f"the last message must be the user's, not {last['role']!r}'s")
    if not what and style != "think_answer":
        return [*before, last]
    instruction, what = INSTRUCTIONS[style], what or "your reply to the user"
    if domain in BOXED_DOMAINS:
        instruction = _STEP_BY_STEP if style == "plain" else instruction
        what = f"{what}, as \\boxed{{...}}" + "," * (style == "think_answer")
    text = f"{last['content'].rstrip()}\n\n{instruction.format(what=what)}"
    return [*before, PromptMessage(role="user", content=text)]


def plain_prompt(messages: Sequence[Mapping[str, str]], extras: str | Mapping[str, Any]) -> list[PromptMessage] | None:
    """The plain request of an open row as a prompt, with the instruction that ends the row's own; None if unknown.

    ``extras.plain_prompt`` has it, as text or messages; otherwise it is ``extras.request`` in one user message. The
    framing's other messages, a system message among them, are left out: they are part of the framing.
    """
    values = json.loads(extras) if isinstance(extras, str) else extras
    if plain := values.get("plain_prompt"):
        return [PromptMessage(role="user", content=plain)] if isinstance(plain, str) else list(plain)
    if not values.get("request"):
        return None
    last, instruction = messages[-1]["content"], ""
    for text in (*INSTRUCTIONS.values(), _STEP_BY_STEP):
        start = last.rfind("\n\n" + text.split("{what}")[0])
        instruction = last[start:] if start >= 0 else instruction
    return [PromptMessage(role="user", content=f"{values['request'].strip()}{instruction}")]


def check_style(files: Iterable[str | os.PathLike[str]], style: Style) -> None:
    """Compare a recipe's response style with the one that the first row of each file was written for.

    Raises:
        DataError: they differ. Prompts that do not say what they ask for are passed over.
    """
    for path in files:
        row = next(read_rows(path), None)
        if row is None:
            continue
        found = json.loads(row["extra_info"]["extras"] or "{}").get("style")
        if found is None and "</answer>" in row["prompt"][-1]["content"]:  # built before styles
            found = "think_answer"
        if found not in (None, style):
            raise DataError(
                f"{path}: its prompts ask for the response style {found}, and reward_kwargs.format.style is {style}: "
                f"set it to {found}, or build the data with --style {style}"
            )
