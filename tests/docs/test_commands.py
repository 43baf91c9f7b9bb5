"""Every command of the documentation works, as far as that can be seen without a GPU, a cluster and hours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.checker import check, check_mention, check_overrides
from tests.docs.pages import PAGES, Block, Command, blocks, commands, inline_commands, kind, read
from verl_air.compose import read_recipe
from verl_air.training.preflight import check_settings

BLOCKS = [block for page in PAGES for block in blocks(page, read(page))]
COMMANDS = [command for block in BLOCKS if kind(block) == "shell" for command in commands(block)]
MENTIONS = [command for page in PAGES for command in inline_commands(page, read(page))]

# Blocks that are neither commands nor Python, YAML or overrides: their first words -> what they are.
OTHER_BLOCKS = {
    **dict.fromkeys(("gap Delta_s", "weight w_sk", "E[ sum", "1.15 / L", "grad G"), "formulas"),
    '[project.entry-points."verl_air.plugins"]': "a part of a pyproject.toml",
}
# Parsed with the real parser, not run.
PARSED_ONLY = {
    "verl-air doctor": "fails where there is no GPU; tests/cli/test_doctor.py runs it",
    "verl-air evaluate --model": "generates with vLLM",
    "verl-air evaluate --rejudge": "asks a judge on another machine",
}
# Not looked at.
UNCHECKED = {
    "git clone": "the address is the reader's",
    "cd verl-air": "the clone's folder",
    "pip install": "would install; versions are pinned in requirements/cpu.lock",
    "python -m verl.model_merger": "verl's own, on a checkpoint; tests/evaluation/test_checkpoints.py runs it",
    ".venv/bin/pre-commit install": "would write into this clone's .git",
}
# Mentions in running text of programs that are not ours.
UNCHECKED_MENTIONS = {
    "pip install": "would install; versions are pinned in requirements/cpu.lock",
    "kubectl apply": "needs a Kubernetes cluster; the file is checked by tests/cluster",
    "ray stop": "would end other people's Ray",
}


def is_in(table: dict[str, str], text: str) -> bool:
    return any(" ".join(text.split()).startswith(start) for start in table)


def name(command: Command) -> str:
    return f"{command.place} {command.text}"


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if not is_in(UNCHECKED, c.text)], ids=name)
def test_a_command_of_a_block(command: Command, world: Path) -> None:
    check(command, world, parse_only=is_in(PARSED_ONLY, command.text))


@pytest.mark.parametrize("command", [c for c in MENTIONS if not is_in(UNCHECKED_MENTIONS, c.text)], ids=name)
def test_a_command_in_running_text(command: Command) -> None:
    check_mention(command)


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in BLOCKS if kind(block) == "overrides"], ids=lambda b: b.place)
def test_overrides_fit_the_quickstart(block: Block) -> None:
    check_overrides(block.text.split())


@pytest.mark.parametrize("recipe", ["my_recipe.yaml", "my_recipes/my_recipe.yaml"])
def test_the_recipes_of_the_pages_are_valid(world: Path, recipe: str) -> None:
    assert check_settings(read_recipe(world / recipe)) is not None


def test_every_block_is_of_a_known_kind() -> None:
    unknown = [block for block in BLOCKS if kind(block) == "unknown" and not is_in(OTHER_BLOCKS, block.text)]
    assert [block.place for block in unknown] == []


@pytest.mark.parametrize(
    ("table", "found"),
    [(PARSED_ONLY, COMMANDS), (UNCHECKED, COMMANDS), (UNCHECKED_MENTIONS, MENTIONS), (OTHER_BLOCKS, BLOCKS)],
    ids=["parsed only", "unchecked", "unchecked mentions", "other blocks"],
)
def test_what_is_left_out_is_still_in_the_pages(table: dict[str, str], found: list[Command | Block]) -> None:
    assert [start for start in table if not any(is_in({start: ""}, item.text) for item in found)] == []


def test_pages_hold_commands_of_each_sort() -> None:
    """If the reading of pages broke, the tests above would pass for lack of commands."""
    programs = {command.program for command in COMMANDS}
    assert {"make", "verl-air", "python", "sbatch", "scripts/cluster/plain_ray.sh"} <= programs
    assert len(COMMANDS) > 30
    assert len(MENTIONS) > 30
