r"""Exact values: nothing is rounded and nothing underflows.

A value is a ``Fraction`` while that has at most some 100,000 bits. Beyond, it is known by its residue modulo a prime of
127 bits, which has room for powers like 10^(10^9), large factorials, square roots of integers, i, and letters
(unknowns, pi, e), each of which stands for a fixed residue. Equal values have equal residues. Unequal ones have not, as
far as people write them: the prime P is 24 q + 1 with q prime, so two powers of one base can only agree if their
exponents differ by a multiple of q, which has 37 digits; exponents have at most 30.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from hashlib import blake2b

_Q = 4_760_821_456_863_503_307_979_006_760_898_123_827  # a prime, as is:
_P = 24 * _Q + 1
_MAX_BITS = 1 << 17
_MAX_EXPONENT = 10**30
_MAX_EXACT_FACTORIAL = 5_000
_SMALL_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)  # P is such that each has a square root
_EIGHTH_ROOTS_OF_1 = (pow(base, 3 * _Q, _P) for base in range(2, 99))
_EIGHTH_ROOT_OF_1 = next(power for power in _EIGHTH_ROOTS_OF_1 if pow(power, 4, _P) == _P - 1)  # a primitive one


class UnreadError(ValueError):
    """The text is beyond this reader; symbolics may know it."""


class NoNumberError(ValueError):
    """The text is no value that anybody would give: it is malformed, too deep or too large."""


@dataclass(frozen=True, slots=True)
class Number:
    """A value: exact, or else known by its residue alone. symbolic: a letter or a root is part of it."""

    exact: Fraction | None
    known_residue: int = 0
    symbolic: bool = False

    @classmethod
    def of(cls, value: Fraction | int) -> Number:
        """A rational number, exact if it is not too long."""
        exact = Fraction(value)
        if exact.numerator.bit_length() + exact.denominator.bit_length() <= _MAX_BITS:
            return cls(exact)
        return cls(None, cls(exact).residue)

    @classmethod
    def named(cls, name: str) -> Number:
        """An unknown, or a constant that no fraction equals."""
        return cls(None, int.from_bytes(blake2b(name.encode(), digest_size=16).digest(), "big") % _P, True)

    @property
    def residue(self) -> int:
        """The value modulo P."""
        if self.exact is None:
            return self.known_residue
        return self.exact.numerator * pow(self.exact.denominator, -1, _P) % _P

    def __add__(self, other: Number) -> Number:
        if self.exact is not None and other.exact is not None:
            return Number.of(self.exact + other.exact)
        return Number(None, (self.residue + other.residue) % _P, self.symbolic or other.symbolic)

    def __mul__(self, other: Number) -> Number:
        if self.exact is not None and other.exact is not None:
            return Number.of(self.exact * other.exact)
        return Number(None, self.residue * other.residue % _P, self.symbolic or other.symbolic)

    def __neg__(self) -> Number:
        return self * Number(Fraction(-1))

    def __pow__(self, exponent: int) -> Number:
        if exponent <= 0 and (self.exact == 0 or self.residue == 0):
            raise NoNumberError("division by zero")
        if abs(exponent) > _MAX_EXPONENT:
            raise NoNumberError("an exponent of more than 30 digits")
        if self.exact is not None:
            bits = self.exact.numerator.bit_length() + self.exact.denominator.bit_length()
            if bits * abs(exponent) <= _MAX_BITS:
                return Number.of(self.exact**exponent)
            if abs(self.exact) in (0, 1):
                return Number.of(self.exact ** (2 - exponent % 2))
        return Number(None, pow(self.residue, exponent, _P), self.symbolic)

    def same(self, other: Number) -> bool:
        """Whether two values are equal."""
        if self.exact is not None and other.exact is not None:
            return self.exact == other.exact
        return self.residue == other.residue


IMAGINARY_UNIT = Number(None, pow(_EIGHTH_ROOT_OF_1, 2, _P), True)


@cache
def _prime_root(prime: int) -> Number:
    """A square root of a small prime, always the same one."""
    root = pow(prime, (3 * _Q + 1) // 2, _P)
    turns = (root * pow(_EIGHTH_ROOT_OF_1, k, _P) % _P for k in range(8))
    return Number(None, next(turn for turn in turns if turn * turn % _P == prime), True)


def _integer_root(value: int, degree: int) -> int | None:
    """The exact root of a non-negative integer, if there is one; of degrees above 2, if floats can find it."""
    root = math.isqrt(value) if degree == 2 else round(min(value, 1 << 1000) ** (1 / degree))
    return root if root**degree == value else None


def root(value: Number, degree: int) -> Number:
    """The real root of a fraction, or the square root of a negative one.

    Raises:
        UnreadError: it is neither a fraction nor made of the square roots of small primes.
    """
    if value.exact is None or not 2 <= degree <= 64:
        raise UnreadError("a root of a symbol")
    top, bottom, negative = abs(value.exact.numerator), value.exact.denominator, value.exact < 0
    if max(top, bottom).bit_length() > 4096:
        raise UnreadError("a root of a large number")
    roots = _integer_root(top, degree), _integer_root(bottom, degree)
    if roots[0] is not None and roots[1] is not None and (degree % 2 or not negative):
        return Number.of(Fraction(-roots[0] if negative else roots[0], roots[1]))
    if degree != 2:
        raise UnreadError("a root that is no fraction")
    square_free, result = top * bottom, Number.of(Fraction(1, bottom))
    for prime in _SMALL_PRIMES:
        while square_free % prime == 0:
            square_free //= prime
            result = result * _prime_root(prime)
    rest = _integer_root(square_free, 2)
    if rest is None:
        raise UnreadError("a root of a large prime")
    result = result * Number.of(rest)
    return result * IMAGINARY_UNIT if negative else result


def factorial(n: int, step: int) -> Number:
    """``n (n - step) (n - 2 step) ...``, for an n of at most some 100,000."""
    if n <= _MAX_EXACT_FACTORIAL:
        return Number.of(math.prod(range(n, 0, -step)))
    residue = 1
    for factor in range(n, 0, -step):
        residue = residue * factor % _P
    return Number(None, residue)
