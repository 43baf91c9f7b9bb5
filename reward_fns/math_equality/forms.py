"""Takes a clean mathematical text (`text`) apart, into the forms that `compare` compares."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from reward_fns.math_equality.compare import Compound, Form, Value, compare
from reward_fns.math_equality.numbers import NoNumberError
from reward_fns.math_equality.text import COMMA_GAPS
from reward_fns.math_equality.units import readings

_MAX_DEPTH = 8
_MAX_ITEMS = 200

_CONNECTIVES = re.compile(
    r"\s*,?\s*(?:\\(?:text|mathrm|textrm|mbox)\s*\{\s*(?:or|and|oder|und|ou|et)\s*\}|\\(?:lor|land|vee|wedge)(?![A-Za-z])|"
    r"(?<![\\A-Za-z])(?:or|and|oder|und|ou|et)(?![A-Za-z])|\\&|&|[\u548c\u6216])\s*,?\s*"
)
_DENIAL = re.compile(r"\b(?:not|never|no|wrong|false|than|isn)\b", re.IGNORECASE)
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])|\u00b1|\+/-|\+-")


_ARROWS = (
    r"\\(?:to|gets|mapsto|(?:long|Long|x)?(?:left)?(?:[rR]ight|[lL]eft)arrow|implies|iff|leadsto)(?![A-Za-z])|"
    r"<?[-=]+>|[\u2190-\u21ff]"
)
_SIMILAR = (
    r"\\(?:approx|sim|simeq|cong|equiv|propto|neq?|not\s*=?|nless|ngtr|doteq)(?![A-Za-z])|"
    r"[\u2248\u2245\u2261\u2260\u223c\u221d]|!=|=="
)
_DOTS = r"\\[lcdv]?dots[bcmio]?(?![A-Za-z])|\.{2,}|\u2026|\u22ef"
_CROSSED_OUT = r"\\(?:[bx]?cancel|sout|st|not)(?![A-Za-z])|~~|(?<=[\d)}])\s*(?:'|\\prime)"
_QUANTIFIERS = r"\\(?:forall|exists|mp|mid|nmid|perp|parallel|because|therefore)(?![A-Za-z])|[\u2200\u2203\u2213]"
_STRICT_MARK = re.compile(rf"{_ARROWS}|{_SIMILAR}|{_DOTS}|{_CROSSED_OUT}|{_QUANTIFIERS}|:")
_INEQUALITY = re.compile(
    r"\\(?:leq?|geq?|leqslant|geqslant|lt|gt|ll|gg|in|notin|ni|subset(?:eq)?)(?![A-Za-z])|[<>\u2264\u2265\u2208]=?"
)
_OPENING, _CLOSING = "([{", ")]}"
_NAME = re.compile(
    r"(?:[A-Za-z]|\\[A-Za-z]+|[A-Za-z][A-Za-z ]{1,30}|\([a-z](?: ?, ?[a-z])+\))(?:\s*_(?:\w|\{\w+\}))?'?"
    r"(?:\s*\((?:[a-z](?:,\s*[a-z])*|\d{1,6})\))?|\\(?:text|mathrm)\{[\w ]+\}|"
    r"(?:\\?Pr?|\\mathbb\{[PE]\}|E|Var)\s*[(\[][^()\[\]]{1,40}[)\]]"
)


def _depths(text: str) -> list[int]:
    """How deep each character is in brackets of any kind.

    Raises:
        NoNumberError: the brackets do not match up.
    """
    depths, depth, braces = [], 0, 0
    for char in text:
        if char in _CLOSING:
            depth -= 1
            braces -= char == "}"
        depths.append(depth)
        if char in _OPENING:
            depth += 1
            braces += char == "{"
        if depth < 0 or braces < 0:
            break
    if depth or braces:
        raise NoNumberError("the brackets do not match up")
    return depths


def _split(text: str, pattern: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The parts of a text between the matches outside of brackets, and these matches."""
    if not pattern.search(text):
        return [text], []
    depths = _depths(text)
    parts, signs, start = [], [], 0
    for match in pattern.finditer(text):
        if depths[match.start()] == 0 and match.end() > start:
            parts.append(text[start : match.start()].strip())
            signs.append(match[0].strip())
            start = match.end()
    return [*parts, text[start:].strip()], signs


_COMMA, _EQUALS = re.compile(r"[,;]"), re.compile(r"=")


@lru_cache(maxsize=4096)
def read(text: str) -> Form:
    """Take a clean text apart."""
    try:
        _depths(text)
        if text.count("\\begin{") != text.count("\\end{") or text.count("\\left") > 100:
            raise NoNumberError("an environment is not closed")
        return _read(text, 0)
    except NoNumberError:
        return Value(text, sound=False)


def _read(text: str, depth: int) -> Form:
    if depth > _MAX_DEPTH:
        raise NoNumberError("nested too deeply")
    text = text.strip()
    if depth == 0:
        text = _outside(text)
    text = _CONNECTIVES.sub(",", text)
    parts, signs = _split(text, _COMMA)
    if signs:
        return _list("", parts, depth)
    for relation in (_STRICT_MARK, _INEQUALITY):
        parts, signs = _split(text, relation)
        if signs:
            return _related(parts, signs, depth)
    parts, signs = _split(text, _EQUALS)
    if signs:
        return _equation(parts, depth)
    if _PLUS_MINUS.search(text):
        return _list("", [_PLUS_MINUS.sub(sign, text) for sign in "+-"], depth)
    return _bracketed(text, depth) or Value(text, *readings(text))


def _outside(text: str) -> str:
    """A text whose numbers outside of list brackets are written without commas."""
    if "," not in text:
        return text
    depths = _depths(text) if any(opening in text for opening in ("(", "[", "\\{")) else [0] * len(text)
    return COMMA_GAPS.sub(lambda match: match[0] if depths[match.start()] else match[0].replace(",", ""), text)


def _list(kind: str, parts: list[str], depth: int) -> Form:
    parts = [part for part in parts if part]
    if len(parts) > _MAX_ITEMS:
        raise NoNumberError("a list of more than 200 items")
    forms = [_read(part, depth + 1) for part in parts]
    if kind == "" and len(forms) == 1:
        return forms[0]
    name = forms[0].name if kind == "" and forms else ""
    return Compound(kind, tuple(forms), name)


def _related(parts: list[str], signs: list[str], depth: int) -> Form:
    kind = " ".join(_CANONICAL.get(sign, sign) for sign in signs)
    if kind == "\\in" and _NAME.fullmatch(parts[0]):
        return _read(parts[1], depth + 1)
    return Compound(kind, tuple(_read(part, depth + 1) if part else Value("") for part in parts))


_SPELLINGS = {
    "<=": r"\le \leq \leqslant ≤",
    ">=": r"\ge \geq \geqslant ≥",
    "<": r"\lt",
    ">": r"\gt",
    r"\in": "∈",
    r"\ne": r"\neq ≠ != \not=",
    r"\approx": "≈",
    "...": r"\ldots \cdots \dots …",
    r"\to": r"\rightarrow → ->",
    r"\implies": r"\Rightarrow ⇒ =>",
}
_CANONICAL = {spelling: sign for sign, row in _SPELLINGS.items() for spelling in row.split()}


def _equation(parts: list[str], depth: int) -> Form:
    """The value of "x = 5" is 5, and that of "40 + 2 = 42" is 42; other equations are left to symbolics."""
    name = ""
    parts = parts if parts[0] else parts[1:]
    while len(parts) > 1 and _NAME.fullmatch(parts[0]) and not _DENIAL.search(parts[0]):
        name = name or parts[0].replace(" ", "")
        parts = parts[1:]
    forms = [_read(part, depth + 1) for part in parts]
    if len(forms) == 1:
        return replace(forms[0], name=name)
    last = forms[-1]
    verdicts = [compare(last, form) for form in forms[:-1]]
    if all(verdicts):
        return last
    if False in verdicts and all(
        isinstance(form, Value) and any(not number.symbolic for number, _ in form.readings) for form in forms
    ):
        raise NoNumberError("an equation that does not hold")
    return Compound("=", tuple(forms), name)


_BRACKETS = re.compile(r"(?P<open>\\\{|[(\[])(?P<inner>.*)(?P<close>\\\}|[)\]])", re.DOTALL)


def _bracketed(text: str, depth: int) -> Form | None:
    """A tuple, an interval or a set; ``None`` for what brackets merely group."""
    match = _BRACKETS.fullmatch(text)
    if match is None:
        return None
    start, end = match.end("open") - 1, match.start("close")
    if 0 in _depths(text)[start + 1 : len(text) - 1]:
        return None  # "(1) + (2)": the brackets are not a pair
    kind = (match["open"] + match["close"]).replace("\\", "")
    parts, _ = _split(text[start + 1 : end], _COMMA)
    if len(parts) == 1 and kind != "{}":
        return None
    return _list(kind, parts, depth)
