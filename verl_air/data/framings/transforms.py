"""Text disguises for the family ``obfuscation``: what a framing may do to the request before it is put in."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable

from verl_air.errors import DataError

Transform = Callable[[str], str]


def spaced(text: str) -> str:
    """One space between letters, three between words."""
    return "   ".join(" ".join(word) for word in text.split())


def underscored(text: str) -> str:
    """Underscores for spaces; numbers stay whole."""
    return "_".join(text.split())


def alternating_case(text: str) -> str:
    """Every second letter in upper case."""
    return "".join(char.upper() if i % 2 else char.lower() for i, char in enumerate(text))


def leet(text: str) -> str:
    """Digits for look-alike letters."""
    return text.translate(str.maketrans("aeiostAEIOST", "431057431057"))


def reversed_words(text: str) -> str:
    """The words in reverse order."""
    return " ".join(reversed(text.split()))


def rot13(text: str) -> str:
    """Each letter moved by thirteen places."""
    return codecs.encode(text, "rot13")


def base64_text(text: str) -> str:
    """Base64 of the UTF-8 bytes."""
    return base64.b64encode(text.encode()).decode()


TRANSFORMS: dict[str, Transform] = {
    "": lambda text: text,
    "alternating_case": alternating_case,
    "base64": base64_text,
    "leet": leet,
    "reversed_words": reversed_words,
    "rot13": rot13,
    "spaced": spaced,
    "underscored": underscored,
}


def register_transform(name: str, transform: Transform) -> None:
    """Add a transform that framings can name.

    Raises:
        DataError: the name is taken by another one.
    """
    if TRANSFORMS.setdefault(name, transform) is not transform:
        raise DataError(f"transform {name!r} is already registered; choose another name")
