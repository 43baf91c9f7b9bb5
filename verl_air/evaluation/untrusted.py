"""Text that a model wrote, or that came with data: shown as it is, able to do nothing.

Escaping of markup is jinja's (autoescape). This module is about what escaping leaves: control characters, lone
surrogates that cannot be encoded, and marks that turn the direction of the text around them.
"""

from __future__ import annotations

import re

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
LIMIT = 1200


def visible(text: str, limit: int | None = LIMIT) -> str:
    """The text with invisible characters spelled out (``\\u202e``), its middle left out beyond ``limit`` characters."""
    if limit is not None and len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} [... {len(text) - 2 * half} characters left out ...] {text[-half:]}"
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def in_markdown(text: str) -> str:
    """A name or text that must not break a table or pass for markup."""
    plain = visible(text.replace("\n", " "), limit=None)
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
