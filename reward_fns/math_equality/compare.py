r"""The form of a mathematical answer (a value, a list, an interval, a relation), and when two forms are equal.

`forms` reads a form from a text; :func:`compare` decides what can be decided exactly, and returns ``None`` for
what only symbolics can. The rules:

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
- Values are exact: 0.333 is not 1/3, 3.14 is not pi, and "~72" is not 72: an approximation is not exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from reward_fns.math_equality.numbers import Number
from reward_fns.math_equality.units import HUNDREDTHS

_INEQUALITIES = frozenset({"<", ">", "<=", ">=", "\\in", "\\notin"})
_LISTS = frozenset({"", "{}", "()", "[]", "[)", "(]"})


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


def compare(truth: Form, answer: Form, require_units: bool = False) -> bool | None:
    """Whether two forms are equal; ``None`` if only symbolics can tell."""
    names = {truth.name, answer.name}
    if len(names) == 2 and all(name and (len(name) == 1 or not name.isalpha()) for name in names):
        return False  # "x = 5" is not "y = 5"; words say nothing
    truth, answer = _element(truth, answer), _element(answer, truth)
    if isinstance(truth, Value) and isinstance(answer, Value):
        if truth.readings and answer.readings:
            return any(
                mine.same(theirs) and _same_unit(unit, other, mine, require_units)
                for mine, unit in truth.readings
                for theirs, other in answer.readings
            )
        if truth.sound and answer.sound and truth.text != answer.text:
            return None
        return truth.text.casefold() == answer.text.casefold()
    if isinstance(answer, Value) and not answer.sound:
        return False
    if isinstance(truth, Compound) and isinstance(answer, Compound):
        return _same_parts(truth, answer, require_units)
    # A value and a compound: never equal where the value is read, else for symbolics.
    value, compound = (truth, answer) if isinstance(truth, Value) else (answer, truth)
    assert isinstance(value, Value)
    assert isinstance(compound, Compound)
    if compound.kind == "=" and value.name:
        return None  # "y = ..." is an equation too
    return None if value.sound and not value.readings and _may_be_the_same(compound.kind, "=") else False


def _element(form: Form, other: Form) -> Form:
    """A set of one is its element, compared with a value."""
    if isinstance(form, Compound) and form.kind == "{}" and len(form.parts) == 1 and isinstance(other, Value):
        return form.parts[0]
    return form


def _same_unit(unit: str, other: str, value: Number, required: bool) -> bool:
    if unit == other or {unit, other} == {"", HUNDREDTHS}:
        return True
    if "%" in (unit, other) and (value.exact is None or abs(value.exact) < 1):
        return False
    return "" in (unit, other) and not required


def _same_parts(truth: Compound, answer: Compound, require_units: bool) -> bool | None:
    kinds = {truth.kind, answer.kind}
    if not kinds <= _LISTS:
        if len(kinds) == 1:
            equal = _in_order(truth.parts, answer.parts, require_units)
            return None if truth.kind == "=" and not equal else equal
        return None if _may_be_the_same(truth.kind, answer.kind) else False
    dots = any(isinstance(part, Compound) and "..." in part.kind for part in (*truth.parts, *answer.parts))
    if kinds <= {"", "{}"} and not dots:
        return _in_any_order(truth.parts, answer.parts, require_units)
    return _in_order(truth.parts, answer.parts, require_units) if len(kinds) == 1 or kinds == {"", "()"} else False


def _may_be_the_same(kind: str, other: str) -> bool:
    """Whether symbolics may equate the two: inequalities are intervals, and turned round they are the same."""
    return {*kind.split(), *other.split()} <= _INEQUALITIES | _LISTS | {"="}


def _in_order(truth: tuple[Form, ...], answer: tuple[Form, ...], require_units: bool) -> bool | None:
    if len(truth) != len(answer):
        return False
    verdicts = [compare(mine, theirs, require_units) for mine, theirs in zip(truth, answer, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _in_any_order(truth: tuple[Form, ...], answer: tuple[Form, ...], require_units: bool) -> bool | None:
    truth, left, undecided = _distinct(truth), list(_distinct(answer)), 0
    for mine in truth:
        verdicts = [compare(mine, theirs, require_units) for theirs in left]
        if True in verdicts:
            del left[verdicts.index(True)]
        elif None in verdicts:
            undecided += 1
        else:
            return False
    if len(left) != undecided:
        return False
    return None if left else True


def _distinct(parts: tuple[Form, ...]) -> tuple[Form, ...]:
    kept: list[Form] = []
    for part in parts:
        if not any(compare(part, other, True) for other in kept):
            kept.append(part)
    return tuple(kept)
