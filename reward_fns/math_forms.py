r"""The form of a mathematical answer: a value, a list, an interval, a relation; and when two of them are equal.

:func:`read` takes a clean text (`math_text`) apart; :func:`compare` decides what can be decided exactly (`math_exact`),
and returns ``None`` for what only symbolics can. The rules:

- Decoration (`answer_text`), a name before "=" ("x = 5") and steps before the last "=" do not count; steps that are
  false ("5 = 42") make the answer wrong.
- Arrows, "≈", "≠", ratios, dots and inequalities make no number: they equal the same sign between equal parts.
- Tuples and intervals are equal in order and bracket by bracket; sets, and lists without brackets, in any order; a list
  with dots in order. A list may leave the brackets of a set or a tuple out. A set of one is its element.
- Digits are grouped by ``,`` ``{,}`` ``\,`` ``\ `` an apostrophe, a thin or a plain space, always by three: "1 234" is
  1234, "4 2" is nothing. "1.234.567" and "1.234,5" are read as in Europe; "1,5" is a list. In brackets, a comma
  separates.
- Percent: 50% is 1/2, so it equals 0.5. The sign may also be missing on one side where the number is 1 or more: ground
  truth 50 takes "50%", and ground truth 50% takes "50". 0.5 and 0.5% differ.
- A currency sign is a unit. A unit may be missing on one side (not if ``require_units``); two units must be the same,
  nothing is converted: $5 equals 5, but not €5; 5 cm is not 5 m. "million" and the like are factors, no units.
- Values are exact: 0.333 is not 1/3, and 3.14 is not pi.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from reward_fns.math_exact import NoNumberError, Number
from reward_fns.math_text import COMMA_GAPS
from reward_fns.math_units import HUNDREDTHS, readings

_MAX_DEPTH = 8
_MAX_ITEMS = 200

_CONNECTIVES = re.compile(
    r"\s*,?\s*(?:\\(?:text|mathrm|textrm|mbox)\s*\{\s*(?:or|and|oder|und|ou|et)\s*\}|\\(?:lor|land|vee|wedge)(?![A-Za-z])|"
    r"(?<![\\A-Za-z])(?:or|and|oder|und|ou|et)(?![A-Za-z])|\\&|&|[\u548c\u6216])\s*,?\s*"
)
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])|\u00b1|\+/-|\+-")


@dataclass(frozen=True)
class Value:
    """readings: values and their units; none if only symbolics can read the text. sound: it may be a value at all."""

    text: str
    readings: tuple[tuple[Number, str], ...] = ()
    sound: bool = True
    name: str = ""


@dataclass(frozen=True)
class Compound:
    """kind: the brackets ("" for none), or the signs between the parts."""

    kind: str
    parts: tuple[Form, ...]
    name: str = ""


Form = Value | Compound

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
    r"(?:\s*\((?:[a-z](?:,\s*[a-z])*|\d{1,6})\))?|\\(?:text|mathrm)\{[\w ]+\}"
)


def _depths(text: str) -> list[int]:
    """How deep each character is in brackets of any kind.

    Raises:
        NoNumberError: the brackets do not match up.
    """
    depths, depth = [], 0
    braces = 0
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
    if _CONNECTIVES.search(text):
        text = _CONNECTIVES.sub(",", text)
    parts, _ = _split(text, _COMMA)
    if len(parts) > 1:
        return _list("", parts, depth)
    for strict in (True, False):
        parts, signs = _split(text, _STRICT_MARK if strict else _INEQUALITY)
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
    depths, braced = _depths(text), "(" not in text and "[" not in text and "\\{" not in text

    def bare(match: re.Match[str]) -> str:
        return match[0].replace(",", "") if braced or depths[match.start()] == 0 else match[0]

    return COMMA_GAPS.sub(bare, text)


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
_INEQUALITIES = frozenset({"<", ">", "<=", ">=", "\\in", "\\notin"})


def _equation(parts: list[str], depth: int) -> Form:
    """The value of "x = 5" is 5, and that of "40 + 2 = 42" is 42; other equations are left to symbolics."""
    name = ""
    parts = parts if parts[0] else parts[1:]
    while len(parts) > 1 and _NAME.fullmatch(parts[0]):
        name = name or parts[0].replace(" ", "")
        parts = parts[1:]
    forms = [_read(part, depth + 1) for part in parts]
    if len(forms) == 1:
        form = forms[0]
        return (
            Value(form.text, form.readings, form.sound, name)
            if isinstance(form, Value)
            else Compound(form.kind, form.parts, name)
        )
    last = forms[-1]
    verdicts = [compare(last, form) for form in forms[:-1]]
    if all(verdicts):
        return last
    read_all = all(
        isinstance(form, Value) and any(not number.symbolic for number, _ in form.readings) for form in forms
    )
    if False in verdicts and read_all:
        raise NoNumberError("an equation that does not hold")
    return Compound("=", tuple(forms), name)


_BRACKETS = re.compile(
    r"(?P<open>\\\{|[(\[]|\\langle(?![A-Za-z]))(?P<inner>.*)(?P<close>\\\}|[)\]]|\\rangle)", re.DOTALL
)


def _bracketed(text: str, depth: int) -> Form | None:
    """A tuple, an interval or a set; ``None`` for what brackets merely group."""
    match = _BRACKETS.fullmatch(text)
    if match is None:
        return None
    start, end = match.end("open") - 1, match.start("close")
    if 0 in _depths(text)[start + 1 : len(text) - 1]:
        return None  # "(1) + (2)": the brackets are not a pair
    kind = (match["open"] + match["close"]).replace("\\langle", "(").replace("\\rangle", ")").replace("\\", "")
    parts, _ = _split(text[start + 1 : end], _COMMA)
    if len(parts) == 1 and kind != "{}":
        return None
    return _list(kind, parts, depth)


def compare(truth: Form, answer: Form, require_units: bool = False) -> bool | None:
    """Whether two forms are equal; ``None`` if only symbolics can tell."""
    if truth.name and answer.name and _symbol(truth.name) and _symbol(answer.name) and truth.name != answer.name:
        return False
    if isinstance(truth, Compound) and truth.kind == "{}" and len(truth.parts) == 1 and isinstance(answer, Value):
        truth = truth.parts[0]
    if isinstance(answer, Compound) and answer.kind == "{}" and len(answer.parts) == 1 and isinstance(truth, Value):
        answer = answer.parts[0]
    if isinstance(answer, Value) and not answer.sound:
        return _same_words(truth, answer)
    if isinstance(truth, Value) and isinstance(answer, Value):
        return _same_value(truth, answer, require_units)
    if isinstance(truth, Compound) and isinstance(answer, Compound):
        return _same_parts(truth, answer, require_units)
    return _mixed(truth, answer)


def _symbol(name: str) -> bool:
    return len(name) == 1 or not name.isalpha()


def _same_words(truth: Form, answer: Value) -> bool:
    return isinstance(truth, Value) and truth.text.casefold() == answer.text.casefold()


def _same_value(truth: Value, answer: Value, require_units: bool) -> bool | None:
    if not truth.readings or not answer.readings:
        if truth.text == answer.text:
            return True
        if not truth.sound:
            return _same_words(truth, answer)
        return None
    return any(
        mine.same(theirs) and _same_unit(unit, other, mine, require_units)
        for mine, unit in truth.readings
        for theirs, other in answer.readings
    )


def _same_unit(unit: str, other: str, value: Number, required: bool) -> bool:
    if unit == other or {unit, other} == {"", HUNDREDTHS}:
        return True
    if "%" in (unit, other) and (value.exact is None or abs(value.exact) < 1):
        return False
    return "" in (unit, other) and not required


def _same_parts(truth: Compound, answer: Compound, require_units: bool) -> bool | None:
    lists = ("", "{}", "()", "[]", "[)", "(]")
    if truth.kind not in lists or answer.kind not in lists:
        if truth.kind == answer.kind:
            return _in_order(truth.parts, answer.parts, require_units, undecided=truth.kind == "=")
        return None if _may_be_the_same(truth.kind, answer.kind) else False
    unordered = {truth.kind, answer.kind} <= {"", "{}"} and not any(map(_has_dots, (*truth.parts, *answer.parts)))
    if truth.kind != answer.kind and not unordered and {truth.kind, answer.kind} != {"", "()"}:
        return False
    if not unordered:
        return _in_order(truth.parts, answer.parts, require_units)
    return _in_any_order(truth.parts, answer.parts, require_units)


def _has_dots(form: Form) -> bool:
    return isinstance(form, Compound) and "..." in form.kind


def _may_be_the_same(kind: str, other: str) -> bool:
    """Whether symbolics may equate the two: inequalities are intervals, and turned round they are the same."""
    known = _INEQUALITIES | {"=", "()", "[]", "[)", "(]", "", "{}"}
    return set(kind.split()) <= known and set(other.split()) <= known


def _in_order(
    truth: tuple[Form, ...], answer: tuple[Form, ...], require_units: bool, undecided: bool = False
) -> bool | None:
    if len(truth) != len(answer):
        return None if undecided else False
    verdicts = [compare(mine, theirs, require_units) for mine, theirs in zip(truth, answer, strict=True)]
    if all(verdicts):
        return True
    return None if undecided or False not in verdicts else False


def _in_any_order(truth: tuple[Form, ...], answer: tuple[Form, ...], require_units: bool) -> bool | None:
    truth, answer = _distinct(truth), _distinct(answer)
    left, open_ones = list(answer), 0
    for mine in truth:
        verdicts = [compare(mine, theirs, require_units) for theirs in left]
        if True in verdicts:
            del left[verdicts.index(True)]
        elif None in verdicts:
            open_ones += 1
        else:
            return False
    if len(left) != open_ones:
        return False
    return None if left else True


def _distinct(parts: tuple[Form, ...]) -> tuple[Form, ...]:
    kept: list[Form] = []
    for part in parts:
        if not any(compare(part, other, True) for other in kept):
            kept.append(part)
    return tuple(kept)


def _mixed(truth: Form, answer: Form) -> bool | None:
    """A value and a compound: never equal where the value is read, else for symbolics."""
    value, compound = (truth, answer) if isinstance(truth, Value) else (answer, truth)
    assert isinstance(value, Value)
    assert isinstance(compound, Compound)
    if compound.kind == "=" and value.name:
        return None  # "y = ..." is an equation too
    return None if value.sound and not value.readings and _may_be_the_same(compound.kind, "=") else False
