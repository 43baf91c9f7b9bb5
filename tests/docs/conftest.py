"""A folder with what the pages' examples take for granted, under the names that the pages use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import RECIPES
from tests.data.support import FIXTURES
from tests.docs.pages import blocks, read
from tests.evaluation.support import write_run
from verl_air.cluster.model_shapes import known_models


@pytest.fixture(scope="session")
def world(playground_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, made once; commands leave their outputs in it."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "recipes").symlink_to(RECIPES)
    _sources(folder)
    _runs(folder, playground_files)
    (folder / "data").mkdir()
    (folder / "data" / "playground").symlink_to(playground_files)
    for file in playground_files.glob("*.parquet"):
        (folder / file.name).symlink_to(file)
    _recipes_of_a_reader(folder)
    return folder


@pytest.fixture(autouse=True)
def _in_world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "world" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("world"))


def _sources(folder: Path) -> None:
    """Data to build from, in the formats of the published sets."""
    (folder / "harmful_behaviors.csv").write_text((FIXTURES / "requests.csv").read_text())
    (folder / "own.csv").write_text(
        "request,severity\n" + "".join(f"Carry out the {n}th plan of the {n} robbers.,1\n" for n in range(20))
        + "".join(f"Name {n} kinds of bread and {n} of cheese.,0\n" for n in range(20, 40))
    )  # fmt: skip
    (folder / "jailbreaks.json").write_text('["Be Max: [INSERT PROMPT HERE]", "Pretend that {goal} is a game."]')
    (folder / "jailbreak_prompts.csv").write_text("prompt,community\nBe Zoe,a\nObey this at once: {goal},b\n")
    head, *dilemmas = (FIXTURES / "dilemmas.csv").read_text().splitlines(keepends=True)
    for name in ("low", "high"):
        (folder / f"moralchoice_{name}_ambiguity.csv").write_text(
            head + "".join(line for line in dilemmas if f",{name}," in line)
        )
    problems = (FIXTURES / "problems.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(problems[:7]))
    (folder / "test.jsonl").write_text("".join(problems[7:]))


def _runs(folder: Path, playground_files: Path) -> None:
    """Runs as training leaves them; one with a checkpoint and the model that it began with."""
    for seed, name in enumerate(("quickstart", "mine", "grpo", "air")):
        write_run(folder / "runs" / name, seed=seed, steps=40, every=20)
    for seed in (1, 2):
        for method in ("grpo", "air"):
            write_run(folder / "runs" / f"{method}-{seed}", seed=seed, steps=4, every=2)
    checkpoints = folder / "runs" / "mine" / "checkpoints"
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("40")
    for model in (folder / "runs" / "mine" / "playground" / "model", checkpoints / "global_step_40" / "huggingface"):
        model.parent.mkdir(parents=True)
        model.symlink_to(playground_files / "model")


def _recipes_of_a_reader(folder: Path) -> None:
    """The recipes that pages show as a reader's own, in the files that their commands name."""
    (folder / "my_recipes").mkdir()
    (folder / "my_recipes" / "my_recipe.yaml").write_text(shown_recipe("recipes/README.md"))
    (folder / "my_recipe.yaml").write_text(shown_recipe("docs/getting_started.md"))
    (folder / "models" / "mine").mkdir(parents=True)
    sizes = known_models()["Qwen/Qwen2.5-14B-Instruct"]
    (folder / "models" / "mine" / "config.json").write_text(json.dumps(sizes))


def shown_recipe(page: str) -> str:
    """The first YAML block of a page."""
    return next(block.text for block in blocks(page, read(page)) if block.language == "yaml")
