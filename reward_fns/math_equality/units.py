"""Numbers with a unit, a currency or a percent sign: every reading of a text; `compare` states the rules."""

from __future__ import annotations

import re
from fractions import Fraction

from reward_fns.math_equality.exact import evaluate
from reward_fns.math_equality.numbers import NoNumberError, Number, UnreadError

_MAX_CHARS = 300  # a longer text is no number with a unit
_FACTORS = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
HUNDREDTHS = "1/100"
"""The unit of a percentage that is read as a fraction: 50% as 1/2."""
_CURRENCIES = "$\u20ac\u00a3\u00a5\u20b9"
# One row per unit: how it is normalized, and its other names (in the singular).
_SYNONYMS = """
$ dollar usd us$ buck
\u20ac euro eur
\u00a3 gbp
\u20b9 rupee rs
% percent prozent percentage
degree \u00b0 deg
hour h hr
minute min
second s sec
m metre meter
cm centimetre centimeter
mm millimetre millimeter
km kilometre kilometer
g gram
kg kilogram kgs
l litre liter
ft foot feet
in inch inche
mi mile
"""
_SAME_UNIT = {name: row.split()[0] for row in _SYNONYMS.strip().splitlines() for name in row.split()}
_SYMBOLS = """
mm cm dm m km in ft yd mi mg g kg t lb lbs oz ml cl l L s sec min h hr hrs ms Hz kHz MHz GHz N J kJ W kW V A K C F
Pa kPa mol cal kcal rad deg mph kmh kph kWh eV ha sq cu USD EUR GBP pm am dB GB MB KB
"""
_KNOWN_UNITS = frozenset(_SYMBOLS.split())
# Words that make something else of the number before them.
_OPERATORS = """
or and not to if is are no never else than more less minus plus times over by from least most between maybe perhaps
probably approximately about around roughly ish wrong incorrect false squared cubed doubled halved factorial mod
modulo choose percentile remainder r base when where for with without but because unless either neither nor only
except vs versus true sin cos tan log ln exp max lim gcd lcm sqrt score tens ones half halves third thirds quarter
quarters tenth tenths hundredth hundredths thousandth thousandths th st nd rd cannot dont impossible undefined
unknown hundred hundreds thousand thousands million millions billion billions trillion dozen dozens lakh lakhs crore
crores gross below above twice negative root inverse reciprocal nope approx est guess guessed rejected disproved
doubtful uncertain factorials
"""
_NO_UNIT_FORM = re.compile(r"(?:fif|six|seven|eigh|nin|\w+illion|\w+een|\w+tie)ths?|\w+(?:ly|fold|illions?)")
_NO_UNIT = frozenset(_OPERATORS.split())
_LETTERS = r"[A-Za-z\u00b5\u03a9]"
_UNIT_WORD = (
    r"(?:\\(?:text|textrm|textbf|textit|mathrm|mathit|operatorname|mbox|rm)\s*\{[^{}]*\}|"
    rf"{_LETTERS}+(?!{_LETTERS})\.?|\u00b0)"
)
_UNIT_TAIL = re.compile(
    rf"(?P<head>.*?[\d)}}!\u00bc-\u00be\u2150-\u215e.])(?P<gap>\s*)"
    rf"(?P<unit>(?:{_UNIT_WORD}|[%{_CURRENCIES}])(?:\s*(?:[-/*]\s*)?(?:{_UNIT_WORD}|\^\s*\{{?-?\d\}}?))*)",
    re.DOTALL | re.ASCII,
)
_UNIT_PART = re.compile(rf"{_LETTERS}+|[\u00b0%{_CURRENCIES}]|\^\s*\{{?-?\d\}}?|[/*]")
_TEXT = re.compile(r"\\[A-Za-z]+\s*\{([^{}]*)\}")
_CURRENCY = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<unit>(?:US)?[{_CURRENCIES}]|USD|EUR|GBP|Rs\.?)\s*(?P<head>[\d.(\\].*)",
    re.DOTALL | re.ASCII,
)
_PROSE = re.compile(
    r"\\(?:text|textbf|textit|textrm|mbox)\s*\{|(?<![\\A-Za-z])[A-Za-z]{4,}|[^\W\d_a-zA-Z\u0370-\u03ff]|(?![0-9])\d|\?"
)
_LONG_WORD = re.compile(r"(?<![\\A-Za-z])(?:[A-Za-z]{4,}|[A-Z][a-z]{2,})")
_SYMBOLIC_WORD = re.compile(
    r"(?<![\\A-Za-z])(?:sinh?|cosh?|tanh?|cot|sec|csc|arc\w+|log|ln|exp|gcd|lcm|max|min|mod|floor|ceil)(?![A-Za-z])"
)


def readings(text: str) -> tuple[tuple[tuple[Number, str], ...], bool]:
    """The values that a text may have, each with its unit, and whether it may be a value at all.

    No value, but maybe one: only symbolics can tell.
    """
    found: list[tuple[Number, str]] = []
    sound = True
    if not (symbolic := bool(_SYMBOLIC_WORD.search(text))):
        try:
            if sound := not _LONG_WORD.search(text):
                found.append((evaluate(text), ""))
        except UnreadError:
            symbolic = True
        except NoNumberError:
            sound = False
    found += _with_unit(text)
    return tuple(found), bool(found) or (sound and not (symbolic and _PROSE.search(text)))


def _with_unit(text: str) -> list[tuple[Number, str]]:
    """The readings of a number with a unit, a currency or a percent sign."""
    if match := _CURRENCY.fullmatch(text):
        currency, amount = _unit(match["unit"]), match["sign"] + match["head"]
        found = [*_plainly(amount), *_with_unit(amount)]
        return [(number, currency) for number, unit in found if unit in ("", currency)]
    match = _UNIT_TAIL.fullmatch(text) if len(text) <= _MAX_CHARS else None
    if match is None:
        return []
    words = _UNIT_PART.findall(_TEXT.sub(r" \1 ", match["unit"]))
    factor = 1
    while words and words[0].lower() in _FACTORS:
        factor *= _FACTORS[words.pop(0).lower()]
    if len(words) > 8 or any(w.lower() in _NO_UNIT or _NO_UNIT_FORM.fullmatch(w.lower()) for w in words):
        return []  # another number, or a doubt about the one before it
    if "\\" not in match["unit"] and "\u00b0" not in words and not _free_standing(words, match["gap"]):
        return []
    unit = " ".join(_unit(word) for word in words)
    numbers = [number * Number.of(factor) for number, _ in _plainly(match["head"])]
    if unit == "%":
        return [reading for n in numbers for reading in ((n * Number.of(Fraction(1, 100)), HUNDREDTHS), (n, "%"))]
    return [(number, unit) for number in numbers]


def _free_standing(words: list[str], gap: str) -> bool:
    """Whether plain letters after a number are a unit, where they could be unknowns ("2x", "3ab")."""
    letters = [word for word in words if word.isalpha()]
    return all(
        len(word) > 3 or bool(gap and len(word) == 3) or (word in _KNOWN_UNITS and bool(gap or len(word) > 1))
        for word in letters
    )


def _unit(word: str) -> str:
    """The one name of a unit."""
    word = re.sub(r"[\s{}]", "", word)
    name = word.lower().removesuffix("s") if len(word) > 2 else word
    return _SAME_UNIT.get(name) or _SAME_UNIT.get(name.lower()) or (name if len(word) > 3 else word)


def _plainly(text: str) -> list[tuple[Number, str]]:
    try:
        return [(evaluate(text), "")]
    except (UnreadError, NoNumberError):
        return []
