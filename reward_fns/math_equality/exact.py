r"""A reader of plain mathematics: an expression becomes an exact value (`numbers`).

Read: integers, decimals, ``1e3``, ``\frac``, ``a/b``, mixed numbers (``1\frac{1}{2}``, ``1 1/2``, ``1½``), + - * /,
juxtaposition, powers, factorials, roots, letters with and without subscripts. Each step is bounded, and so are depth
and exponents; so is the work, whatever the text is.
"""

from __future__ import annotations

import re
from fractions import Fraction
from unicodedata import normalize

from reward_fns.math_equality.numbers import IMAGINARY_UNIT, NoNumberError, Number, UnreadError, factorial, root

_MAX_DEPTH = 40
_MAX_STEPS = 200_000  # multiplications of factorials in one text

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,40}(?![\w.]))?)|\\(?P<command>[A-Za-z]+)|"
    r"(?P<sign>!+|[-+*/^(){}\[\]_])|(?P<name>[A-Za-z\u03b1-\u03c9\u221e])|(?P<part>[\u00bc-\u00be\u2150-\u215e]))",
    re.ASCII,
)
_LETTERS = """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi varphi chi
psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega pi infty ell
"""
_LETTER_COMMANDS = frozenset(_LETTERS.split())
_ALIASES = {"\u03c0": "pi", "\u221e": "infty"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def evaluate(text: str) -> Number:
    """The value of an expression.

    Raises:
        UnreadError: symbolics may know it.
        NoNumberError: it is no value.
    """
    reader = _Reader(text)
    value = reader.sum()
    if not reader.at_end:
        raise NoNumberError("what follows the number has no place here")
    return value


class _Reader:
    """A recursive-descent reader; its methods consume tokens, each a pair of kind and text."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position, text = 0, text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise UnreadError(f"unknown sign {text[position]!r}")
            assert match.lastgroup is not None
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()
        self._at = self._depth = self._steps = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._tokens)

    def _peek(self, ahead: int = 0) -> tuple[str, str]:
        return self._tokens[self._at + ahead] if self._at + ahead < len(self._tokens) else ("end", "")

    def _take(self, sign: str) -> bool:
        if self._peek() == ("sign", sign):
            self._at += 1
            return True
        return False

    def sum(self) -> Number:
        value = self._term()
        while self._peek() in (("sign", "+"), ("sign", "-")):
            negative = self._take("-") or not self._take("+")
            term = self._term()
            value = value + (-term if negative else term)
        return value

    def _term(self) -> Number:
        value = self._factor() if self._take("+") else self._signed_factor()
        divided = False
        while True:
            if self._take("*"):
                value = value * self._signed_factor()
            elif self._take("/"):
                value, divided = value * self._signed_factor() ** -1, True
            elif self._peek()[0] in ("name", "command") or self._peek()[1] in _CLOSING:
                if divided:
                    raise UnreadError("a/bc has two readings")
                value = value * self._factor()
            else:
                return value

    def _signed_factor(self) -> Number:
        return -self._factor() if self._take("-") else self._factor()

    def _factor(self) -> Number:
        value = self._mixed() or self._primary()
        while True:
            kind, sign = self._peek()
            if kind == "sign" and sign[0] == "!":
                self._at += 1
                value = self._factorial(value, len(sign))
            elif self._take("^"):
                value = self._power(value, -self._argument() if self._take("-") else self._argument())
            else:
                return value

    def _mixed(self) -> Number | None:
        r"""``1\frac{1}{2}``, ``1 1/2`` and ``1½``; an improper fraction has no place there."""
        (kind, whole), (following, sign) = self._peek(), self._peek(1)
        if kind != "number" or not (sign == "frac" or following in ("number", "part")):
            return None
        if following == "number":
            ends = self._peek(2) == ("sign", "/") and self._peek(3)[0] == "number"
            if not ends or not (sign + self._peek(3)[1]).isdigit():
                raise NoNumberError("two numbers in a row")
            top, bottom = int(sign), int(self._peek(3)[1])
            self._at += 4
        else:
            self._at += 1
            part = self._primary()
            if part.exact is None:
                raise UnreadError("a product, maybe")
            top, bottom = part.exact.numerator, part.exact.denominator
        if not whole.isdigit() or not 0 < top < bottom:
            raise NoNumberError("not a mixed number")
        return Number.of(int(whole) + Fraction(top, bottom))

    def _primary(self) -> Number:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NoNumberError("nested too deeply")
        kind, text = self._peek()
        self._at += 1
        value = self._value_of(kind, text)
        self._depth -= 1
        return value

    def _value_of(self, kind: str, text: str) -> Number:
        """The value that begins with a token, which is consumed already."""
        if kind == "number":
            mantissa, _, exponent = text.lower().partition("e")
            if exponent:
                return Number.of(Fraction(mantissa)) * Number.of(10) ** int(exponent)
            return Number.of(Fraction(text))
        if kind == "part":
            return Number.of(Fraction(normalize("NFKC", text).replace("\u2044", "/")))  # "½" is "1⁄2"
        if kind == "sign" and text in _CLOSING:
            value = self.sum()
            if not self._take(_CLOSING[text]):
                raise NoNumberError(f"{text!r} is not closed")
            return value
        if kind == "command" and text == "frac":
            return self._argument() * self._argument() ** -1
        if kind == "command" and text == "sqrt":
            return self._square_root()
        if kind == "name" or text in _LETTER_COMMANDS:
            return self._named(_ALIASES.get(text, text))
        if kind == "command":
            raise UnreadError(f"\\{text}")
        raise NoNumberError(f"{text!r} has no place here")

    def _argument(self) -> Number:
        """What a command or a power applies to: a group, or one digit of a number (a power: all of it)."""
        kind, text = self._peek()
        before = self._tokens[self._at - 1]
        if kind == "number" and before[1] != "^" and text[0] != "." and len(text) > 1:
            self._tokens[self._at : self._at + 1] = [("number", text[0]), ("number", text[1:])]
        return self._primary()

    def _square_root(self) -> Number:
        degree = 2
        if self._take("["):
            kind, text = self._peek()
            if kind != "number" or not text.isdigit() or len(text) > 3:
                raise UnreadError("the degree of a root")
            self._at += 1
            degree = int(text)
            if not self._take("]"):
                raise NoNumberError("'[' is not closed")
            self._tokens[self._at - 1] = ("command", "sqrt")
        return root(self._argument(), degree)

    def _named(self, name: str) -> Number:
        if self._take("_"):
            start = self._at
            self._argument()
            name += "_" + "".join(text for _, text in self._tokens[start : self._at]).strip("{}")
        if name == "i":
            return IMAGINARY_UNIT
        return Number.named(name)

    def _power(self, base: Number, exponent: Number) -> Number:
        if exponent.exact is None:
            if not exponent.symbolic:
                raise NoNumberError("a tower of powers")
            raise UnreadError("a symbol as exponent")
        if exponent.exact.denominator == 1:
            return base ** int(exponent.exact)
        if base.exact is None or base.exact < 0:
            raise UnreadError("a root of a symbol")
        return root(base, exponent.exact.denominator) ** exponent.exact.numerator

    def _factorial(self, value: Number, step: int) -> Number:
        if value.exact is None:
            raise UnreadError("the factorial of a symbol")
        n = int(value.exact)
        if n != value.exact or n < 0:
            raise UnreadError("the factorial of a fraction")
        self._steps += n // step
        if self._steps > _MAX_STEPS:
            raise NoNumberError("a factorial of more than 200,000 factors")
        return factorial(n, step)
