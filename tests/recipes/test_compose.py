"""Where recipes are found, what they may include, and what is said of one that cannot be composed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RECIPES, composed
from tests.recipes.conftest import MINE
from verl_air.compose import hydra_arguments, read_recipe
from verl_air.errors import ConfigError


@pytest.fixture
def folder(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a recipe of one's own, next to the working folder's files."""
    monkeypatch.chdir(tmp_path)
    return mine.parent


def test_a_recipe_by_its_path_or_by_its_name_in_a_folder(folder: Path) -> None:
    for recipe, config_dir in ((folder / "mine.yaml", None), ("mine", folder), ("mine.yaml", folder)):
        config = read_recipe(recipe, ["trainer.nnodes=3"], config_dir=config_dir)
        assert (config.trainer.experiment_name, config.trainer.nnodes) == ("mine", 3)
        assert config.run_dir == "runs/mine"  # of base/paper, which the recipe's own search path finds
        assert config.critic.enable is None  # of verl's ppo_trainer
        arguments = hydra_arguments(recipe, config_dir=config_dir)
        assert arguments == ["--config-dir", str(folder), "--config-name", "mine"]


def test_a_name_is_looked_up_here_and_then_among_the_installed_recipes(folder: Path, tmp_path: Path) -> None:
    assert hydra_arguments("quickstart")[1] == str(RECIPES)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "quickstart.yaml").write_text(MINE)
    assert hydra_arguments("quickstart")[1] == str(tmp_path / "recipes")
    assert read_recipe("quickstart").trainer.experiment_name == "mine"
    assert read_recipe("quickstart-gpu").trainer.experiment_name == "quickstart-gpu"


def test_a_search_path_on_the_command_line_replaces_the_recipes_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "base").mkdir(parents=True)
    for name in ("paper", "fsdp2"):
        (tmp_path / "other" / "base" / f"{name}.yaml").write_text("# @package _global_\nair: {coef: 7}\n")
    config = read_recipe("mine", [f"hydra.searchpath=[file://{tmp_path}/other]"], config_dir=folder)
    assert config.air == {"coef": 7}


def test_verls_own_files_come_first_as_in_main_ppo(folder: Path) -> None:
    (folder / "ppo_trainer.yaml").write_text("trainer: {experiment_name: shadow}\n")
    assert "actor_rollout_ref" in read_recipe("mine", config_dir=folder)


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "quickstrat",
            [],
            r"no recipe 'quickstrat' in recipes or .*did you mean 'quickstart'.*there: grpo-qwen2\.5_14b",
        ),
        ("mine", [], r"no recipe 'mine' in recipes or"),
        ("missing.yaml", [], r"no recipe 'missing' in \.; there: broken, list, lost"),
        ("broken.yaml", [], r"broken\.yaml does not compose: while parsing a flow sequence"),
        ("list.yaml", [], r"list\.yaml does not compose: .*must be a DictConfig"),
        ("lost.yaml", [], r"lost\.yaml does not compose: .*Could not load 'base/paper'"),
        ("quickstart", ["nokey=1"], r"quickstart\.yaml does not compose: .*nokey"),
        ("quickstart", ["a=[b"], r"quickstart\.yaml does not compose: .*override_grammar"),
    ],
)
def test_what_cannot_be_composed_is_one_line(
    folder: Path, tmp_path: Path, recipe: str, overrides: list[str], message: str
) -> None:
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "lost.yaml").write_text("defaults: [ppo_trainer, base/paper, _self_]")
    with pytest.raises(ConfigError, match=message) as caught:
        read_recipe(recipe, overrides)
    assert "\n" not in str(caught.value)


def test_every_recipe_composes() -> None:
    for file in RECIPES.glob("*.yaml"):
        assert composed(file.stem).air["_target_"] == "verl_air.AirConfig", file.name
