"""Where the fixtures are, and short ways to build and to spoil data files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from verl_air.data.build import BuildOptions, build
from verl_air.data.math import read_math
from verl_air.data.moral import read_moral
from verl_air.data.safety import read_safety
from verl_air.data.schema import DataRow, read_rows, write_rows

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SPLIT_FILES = ("train.parquet", "id.parquet", "ood.parquet")
FORMATS = ("multiple_choice", "true_false")

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the public sets are not there (../shared/data)")

MATERIALS = {
    "safety": lambda: read_safety([str(FIXTURES / "requests.csv")]),
    "moral": lambda: read_moral([str(FIXTURES / "dilemmas.csv")]),
    "math": lambda: read_math([str(FIXTURES / "problems.jsonl")]),
}


def build_fixture(domain: str, out: Path, options: BuildOptions | None = None) -> list[Path]:
    build(MATERIALS[domain](), options or BuildOptions(), out)
    return [out / name for name in SPLIT_FILES]


def spoil(path: Path, change: Callable[[list[DataRow]], object]) -> None:
    """Rewrite a file after a change of its rows."""
    rows = list(read_rows(path))
    change(rows)
    write_rows(path, rows)


def write_text(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)
