"""Files that are never half written, and model folders told apart."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file under a temporary name, then rename it; missing folders are made. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


_SAMPLED = 1 << 16  # bytes read at each of 16 places of a weight file


def fingerprint(model: Path) -> str:
    """A hash of a model's folder that changes with training, without reading all of the weights.

    It is over the size of each file and its contents at 16 places; small files are read whole.
    """
    digest = hashlib.sha256()
    for file in sorted(path for path in model.iterdir() if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            if size <= 16 * _SAMPLED:
                digest.update(content.read())
                continue
            for place in range(16):
                content.seek((size - _SAMPLED) * place // 15)
                digest.update(content.read(_SAMPLED))
    return digest.hexdigest()[:16]
