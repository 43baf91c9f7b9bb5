"""The recipe that recipes/README.md shows as an example of one's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import RECIPES

MINE: str = re.findall(r"```yaml\n(.*?)```", (RECIPES / "README.md").read_text(), re.DOTALL)[0]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Its file, in a folder whose name needs care."""
    folder = tmp_path / "it's [mine], a=b"
    folder.mkdir()
    (folder / "mine.yaml").write_text(MINE)
    return folder / "mine.yaml"
