"""The house is in order: imports point one way, names are ours, nothing of a machine is left lying about."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "verl_air"
SHARED = {"errors", "settings", "config", "extensions", "compose", "files"}
# room -> the rooms it may import from, alongside itself and the shared modules
ALLOWED = {
    "objective": set(),
    "rewards": set(),
    "data": {"rewards"},
    "evaluation": {"objective", "data", "rewards"},
    "training": {"objective", "data", "rewards", "cluster"},
    "cpu": set(),
    "cluster": set(),
    "playground": {"data", "rewards", "evaluation"},
    "cli": {"objective", "data", "rewards", "evaluation", "training", "plugin", "playground", "cpu", "cluster"},
}
USES_VERL = {"training", "cpu", "cluster"}


def imported(file: Path) -> set[str]:
    """Every module a file imports, at top level or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_point_one_way(room: str) -> None:
    for file in files(PACKAGE / room):
        for name in imported(file):
            if name.startswith("verl_air."):
                target = name.split(".")[1]
                assert target in ALLOWED[room] | SHARED | {room}, f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("room", sorted(set(ALLOWED) - USES_VERL - {"cli"}))
def test_only_the_glue_imports_verl(room: str) -> None:
    for file in files(PACKAGE / room):
        known = {name for name in imported(file) if name.split(".")[0] in ("verl", "ray", "transfer_queue")}
        assert not known, f"{file.relative_to(ROOT)} imports {known}"


def test_reward_functions_import_only_the_rewards_room() -> None:
    for file in files(ROOT / "reward_fns"):
        rooms = {name for name in imported(file) if name.startswith("verl_air")}
        assert rooms <= {"verl_air.rewards"}, f"{file.name} imports {rooms}"


def test_nothing_that_ships_imports_the_studies() -> None:
    for folder in (PACKAGE, ROOT / "reward_fns"):
        for file in files(folder):
            assert not {name for name in imported(file) if name.split(".")[0] == "studies"}, file.relative_to(ROOT)


def test_a_class_is_found_by_its_name() -> None:
    places: dict[str, list[str]] = {}
    for file in [*files(PACKAGE), *files(ROOT / "reward_fns")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_no_file_is_a_tome() -> None:
    every = files(PACKAGE) + [file for file in files(ROOT / "studies") if not file.name.startswith("test_")]
    long = {str(file.relative_to(ROOT)): n for file in every if (n := len(file.read_text().splitlines())) > 300}
    assert not long
