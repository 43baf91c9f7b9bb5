r"""Mathematics in the plain signs that `forms` and `exact` know: spellings of one sign become that sign."""

from __future__ import annotations

import re
from fractions import Fraction

from reward_fns.answer_text import undress

_SPELLINGS = {
    "-": "\u2212\u2013\u2011\u2010",
    "*": "\u00d7\u00b7\u22c5\u2219\u2217",
    "/": "\u00f7\u2044\u2215",
    ",": "\uff0c\u3001",
    ";": "\uff1b",
    "=": "\uff1d",
    "(": "\uff08\u27e8\u2329",
    ")": "\uff09\u27e9\u232a",
    "%": "\uff05",
    "$": "\uff04",
    "\u00b0": "\u00ba",
    "\\sqrt ": "\u221a",
    "": "\u200b\u2060\ufeff",
}
_SIGNS = {ord(char): sign for sign, chars in _SPELLINGS.items() for char in chars}
_SUPERSCRIPTS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b", "0123456789+-"
)
_CLEANERS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.ASCII), by)
    for pattern, by in (
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|mathstrut)(?![A-Za-z])\s*\.?", ""),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"(?:^|(?<=[\s=]))~(?=\s*[-\d.\\$])", r"\\sim "),  # "about"; elsewhere a blank
        (r"\bper\s+cent\b", "percent"),
        (r"(?<=[A-Za-z}])\s+squared\b", "^2"),
        (r"(?<=[A-Za-z}])\s+cubed\b", "^3"),
        (r"\b(?:square|sq\.?)\s+([A-Za-z]+)", r"\1^2"),
        (r"\b(?:cubic|cu\.?)\s+([A-Za-z]+)", r"\1^3"),
        (r"\\(?:text|mathrm)\s*\{\s*([A-Za-z])\s*=\s*\}", r"\1="),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:cdot|times|ast)(?![A-Za-z])", "*"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\[()]|(?<!\\)\$(?=[^$]*(?<!\\)\$)([^$]*)\$", r"\1"),
        (r"^\*\*([^*]+)\*\*(?!\w)", r"\1"),
        (r"\\(?:mathrm|text|mathit|operatorname|mathbf)\s*\{\s*([ei])\s*\}", r" \1 "),
        (r"\\(?:textdollar|\$)", "$"),
        (r"\\(?:euro|texteuro)(?![A-Za-z])(?:\{\})?", "\u20ac"),
        (r"\\pounds(?![A-Za-z])", "\u00a3"),
        (r"\\%", "%"),
        (r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))", "\u00b0"),
        (r"(?<=\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))", "*"),
        (r"(?<=[\w)}])\s*\*\*\s*(?=[\w({-])", "^"),
        (r"(?<![\\A-Za-z])(?:sqrt|pi)(?![A-Za-z])", r"\\\g<0>"),
        (r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+),(\d+)(?![\d,.])", r"\1{.}\2"),
        (r"(?<=\d)\{,\}(?=\d{3}(?!\d))|(?<=\d),\{\}(?=\d{3}(?!\d))", r"\\,"),
        (r"(?<=\d)\{,\}(?=\d)", "."),
    )
)
_EUROPEAN = re.compile(
    r"(?<![\d.,])[0-9]{1,3}(?:\.[0-9]{3}){2,}(?![\d.])|(?<![\d.,])[0-9]{1,3}(?:\.[0-9]{3})+(?=\{\.\})"
)
_GROUPED = r"(?<![\d.,])[0-9]{1,3}(?P<gap>%s)[0-9]{3}(?:(?P=gap)[0-9]{3})*(?!\d)"
_LATEX_GAPS = re.compile(_GROUPED % r"\{,\}|,?\\!|,?\\[,;: ]|['\u2019\u2009\u202f\u00a0~]|,\{\}")
_PLAIN_GAPS = re.compile(_GROUPED % " " + r"(?!\s*(?:/|\\frac))")
COMMA_GAPS = re.compile(r"(?<![\d.,])[0-9]{1,3}(?:,[0-9]{3})+(?!\d|,\d)")
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b]+")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar|dot)\s*\{?([0-9]+)\}?")
_SHORT_FRACTION = re.compile(r"\\frac\s*([0-9])\s*([0-9])")
_SPACES = re.compile(r"\\[,;:! ]|\\q?quad(?![A-Za-z])|(?<!~)~(?!~)|\\\\|\\hspace\{[^{}]*\}")


def clean(text: str) -> str:
    """A text without decoration, in the plain signs that the readers know."""
    text = undress(text, brackets=False).rstrip(",;: \n")
    if text.replace(".", "", 1).isdigit() and text.isascii():
        return text
    text = text.translate(_SIGNS)
    text = _RAISED.sub(lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    for pattern, by in _CLEANERS:
        text = pattern.sub(by, text)
    text = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _EUROPEAN.sub(lambda match: match[0].replace(".", ""), text).replace("{.}", ".")
    for gaps in (_LATEX_GAPS, _PLAIN_GAPS):
        text = gaps.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    text = _REPEATING.sub(_repeating, text)
    return " ".join(undress(_SPACES.sub(" ", text), brackets=False).split())


def _repeating(match: re.Match[str]) -> str:
    whole, fixed, period = match.groups()
    if len(match[0]) > 60:
        return match[0]
    value = Fraction(int((whole + fixed) or "0")) + Fraction(int(period), 10 ** len(period) - 1)
    value /= 10 ** len(fixed)
    return f"({value.numerator}/{value.denominator})"
