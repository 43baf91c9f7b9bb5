"""What a page of Markdown contains: blocks of code, commands in them, links and headings."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.conftest import ROOT

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "recipes/README.md",
    *sorted(str(path.relative_to(ROOT)) for folder in ("docs", "studies") for path in ROOT.glob(f"{folder}/**/*.md")),
]
PROGRAMS = ("cd", "git", "kubectl", "make", "pip", "pre-commit", "pytest", "python", "ray", "sbatch", "verl-air")
DATA = ("python", "yaml", "toml", "json")
SHELL = ("bash", "sh", "shell", "console")

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)\s*(\w*)")
_OVERRIDE = re.compile(r"[+~]*[\w.@/]+=\S+")
_VARIABLE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")


@dataclass(frozen=True)
class Block:
    """Code in a page, without its indentation; ``language`` is "" if none is named."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a block. ``program`` is without folder, unless it is a script of ours."""

    place: str
    text: str
    variables: tuple[tuple[str, str], ...]
    program: str
    arguments: tuple[str, ...]


def blocks(page: str, text: str) -> list[Block]:
    """Fenced and indented blocks, in their order."""
    found: list[Block] = []
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        start = i
        if fence := _FENCE.match(lines[i]):
            i += 1
            while i < len(lines) and not lines[i].lstrip().startswith(fence[1]):
                i += 1
            found.append(Block(page, start + 1, fence[2], textwrap.dedent("\n".join(lines[start + 1 : i]))))
        elif lines[i].startswith("    ") and (i == 0 or not lines[i - 1].strip()):
            while i < len(lines) and (lines[i].startswith("    ") or not lines[i].strip()):
                i += 1
            found.append(Block(page, start + 1, "", textwrap.dedent("\n".join(lines[start:i])).rstrip()))
            continue
        i += 1
    return found


def kind(block: Block) -> str:
    """``shell``, ``data`` (another language), ``overrides`` (of a recipe), or ``unknown``."""
    if block.language in SHELL:
        return "shell"
    if block.language in DATA:
        return "data"
    if any(_is_command(line) for line in block.text.splitlines()):
        return "shell"
    if all(_OVERRIDE.fullmatch(word) for word in block.text.split()):
        return "overrides"
    return "data" if _is_python(block.text) or _is_mapping(block.text) else "unknown"


def _is_command(line: str) -> bool:
    words = line.split()
    while words and _VARIABLE.fullmatch(words[0]):
        words.pop(0)
    return bool(words) and (words[0].startswith("scripts/") or words[0].rpartition("/")[2] in PROGRAMS)


def _is_python(text: str) -> bool:
    try:
        tree = ast.parse(f"{text}\ndef closing(): ...")  # a block may end in a decorator
    except SyntaxError:
        return False
    *written, closing = tree.body
    # A misspelt command of one word is an expression, and no more than that.
    return any(not isinstance(node, ast.Expr) for node in written) or bool(getattr(closing, "decorator_list", ()))


def _is_mapping(text: str) -> bool:
    try:
        return isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        return False


def commands(block: Block) -> list[Command]:
    """The commands of a shell block, comments and line breaks removed; ``a && b`` is two."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s(?:&&|\|\||;|\|)\s", line.strip().removeprefix("$ ")):
            words = shlex.split(part, comments=True)
            if not words:
                continue
            text = shlex.join(words)
            variables = []
            while words and (variable := _VARIABLE.fullmatch(words[0])):
                variables.append((variable[1], variable[2]))
                words.pop(0)
            program = words.pop(0)
            program = program if program.startswith("scripts/") else program.rpartition("/")[2]
            found.append(Command(block.place, text, tuple(variables), program, tuple(words)))
    return found


def _unfenced(text: str) -> str:
    """A page with empty lines in place of its fenced blocks."""
    return re.sub(r"(?ms)^ {0,3}```.*?^ {0,3}```", lambda fence: "\n" * fence[0].count("\n"), text)


def _prose(text: str) -> list[str]:
    """The lines of a page, those of its code empty."""
    kept = _unfenced(text).splitlines()
    for block in blocks("", "\n".join(kept)):
        kept[block.line - 1 : block.line + block.text.count("\n")] = [""] * (block.text.count("\n") + 1)
    return kept


def inline_commands(page: str, text: str) -> list[Command]:
    """Commands named in running text between backticks; they may lack their arguments."""
    found = []
    for number, line in enumerate(_prose(text), 1):
        for span in re.findall(r"`([^`]+)`", line):
            if _is_command(span) and len(span.split()) > 1:
                found += commands(Block(page, number, "sh", span.replace("'", "")))
    return found


def links(text: str) -> list[str]:
    """Targets of links and images outside code."""
    prose = re.sub(r"`[^`\n]*`", "", "\n".join(_prose(text)))
    return re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"(?m)^\[[^\]]+\]:\s+(\S+)", prose)


def anchors(text: str) -> set[str]:
    """The fragments that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#{1,6}\s+(.+?)\s*#*$", _unfenced(text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(next(name for name in _numbered(slug) if name not in found))
    return found


def _numbered(slug: str) -> list[str]:
    return [slug, *(f"{slug}-{i}" for i in range(1, 100))]


def read(page: str) -> str:
    return Path(ROOT / page).read_text(encoding="utf-8")
