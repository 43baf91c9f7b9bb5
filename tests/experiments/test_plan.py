"""The plan file: what is wrong is named, and the plan that we ship composes, method by method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import RECIPES, ROOT
from verl_air.errors import ConfigError
from verl_air.experiments.driver import refuse_contradictions
from verl_air.experiments.plan import Plan, read_plan
from verl_air.experiments.runs import read_records

PLAN = RECIPES / "experiment" / "plan.yaml"
SHIPPED = read_plan(PLAN)


def write(path: Path, **changes: Any) -> Path:
    """A plan of two methods and a study that chooses, with changes."""
    plan: dict[str, Any] = {
        "recipe": "quickstart",
        "common": ["trainer.total_training_steps=2"],
        "measure": {"steps": [1, 2], "sources": ["playground/id"], "thresholds": {"playground/id": 0.5}},
        "methods": {
            "a": {"title": "A", "set": ["x=1"]},
            "b": {"title": "B", "extends": "a", "set": ["y=2"]},
            "c": {"title": "C", "extends": "b", "set": ["z=3"], "tuned_by": "first"},
            "d": {"title": "D", "extends": "c"},
        },
        "studies": [
            {
                "name": "first",
                "question": "?",
                "methods": ["a", "b"],
                "seeds": [9],
                "choose": {"source": "playground/id"},
            },
            {"name": "second", "question": "?", "methods": ["c", "d"], "seeds": [1, 2], "against": "c"},
        ],
        **changes,
    }
    path.write_text(yaml.safe_dump(plan))
    return path


def test_settings_are_the_common_ones_then_those_it_extends_then_its_own(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path / "plan.yaml"))
    assert plan.settings("b") == ["trainer.total_training_steps=2", "x=1", "y=2"]
    assert plan.tuned_by("b") is None
    assert plan.tuned_by("d") is plan.study("first")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipes": "x"}, "unknown key 'recipes'"),
        ({"studies": []}, "studies need names"),
        ({"measure": {"steps": [2], "sources": ["s"], "thresholds": {"s": 1}}}, "two or more rising steps"),
        ({"measure": {"steps": [1, 2], "sources": ["s"], "thresholds": {}}}, "thresholds lacks s"),
        ({"measure": {"steps": [1, 2], "sources": ["s"]}}, "thresholds"),
        ({"methods": {"a": {"title": "A", "extends": "b"}, "b": {"title": "B", "extends": "a"}}}, "extends itself"),
        ({"methods": {"a": {"title": "A", "extends": "nobody"}}}, "no method 'nobody'"),
        ({"studies": [{"name": "s", "question": "?", "methods": ["e"], "seeds": [1]}]}, "no method 'e'"),
        ({"studies": [{"name": "s", "question": "?", "methods": ["a"], "seeds": [1, 1]}]}, "each once"),
        ({"studies": [{"name": "s", "question": "?", "methods": ["a"], "seeds": [1], "against": "b"}]}, "not among"),
        ({"studies": [{"name": "second", "question": "?", "methods": ["c"], "seeds": [1]}]}, "no study 'first'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_plan(write(tmp_path / "plan.yaml", **changes))


def test_a_choice_must_come_before_it_is_used(tmp_path: Path) -> None:
    raw = yaml.safe_load(write(tmp_path / "plan.yaml").read_text())
    with pytest.raises(ConfigError, match="must come before"):
        read_plan(write(tmp_path / "plan.yaml", studies=raw["studies"][::-1]))


def test_the_shipped_plan_has_what_was_promised() -> None:
    by_name = {study.name: study for study in SHIPPED.studies}
    assert by_name["methods-10"].methods == ("grpo", "grpo-vrex", "grpo-air", "gspo", "gspo-air")
    assert len(by_name["methods-10"].seeds) == 10
    assert all(len(study.seeds) >= 3 for study in SHIPPED.studies)
    chosen_on = {seed for study in SHIPPED.studies if study.choose for seed in study.seeds}
    compared_on = {seed for study in SHIPPED.studies if not study.choose for seed in study.seeds}
    assert not chosen_on & compared_on


@pytest.mark.parametrize("method", SHIPPED.methods)
def test_every_shipped_method_composes_and_could_run(method: str, playground_files: Path) -> None:
    from verl_air.training import preflight

    config = composed(SHIPPED, method, playground_files)
    air = preflight.check_recipe(config)
    assert air is not None
    assert air.active == ("regularizer=none" not in " ".join(SHIPPED.settings(method)))
    last = SHIPPED.measure.steps[-1]
    assert config.trainer.total_training_steps == last
    assert all(step % config.trainer.test_freq == 0 for step in SHIPPED.measure.steps)


def test_the_stress_test_pays_for_refusing_anything(playground_files: Path) -> None:
    routes = composed(SHIPPED, "hacked-grpo", playground_files).reward.custom_reward_function.reward_kwargs.routes
    assert routes["playground/open/train"]["name"] == "refusal_keywords"
    assert routes["playground/open"] == "playground_oracle"
    assert routes["playground/anchor"] == "multiple_choice"


def composed(plan: Plan, method: str, playground: Path) -> Any:
    from hydra import compose, initialize_config_dir

    overrides = ["hydra.searchpath=[pkg://verl.trainer.config]", f"playground={playground}", *plan.settings(method)]
    with initialize_config_dir(config_dir=str(RECIPES), version_base=None):
        return compose(plan.recipe, overrides=overrides)


def test_a_tuned_method_cannot_be_run_as_another_one() -> None:
    """The thirteen runs called V-REx that were GRPO: what tuning appends comes last, and wins."""
    plan = read_plan(PLAN)
    tuned = plan.methods["grpo-lr-8e-4"].set
    refuse_contradictions("grpo", plan.settings("grpo"), tuned)
    with pytest.raises(ConfigError, match=r"grpo-vrex: sets air.regularizer=vrex, and tuning would run it with none"):
        refuse_contradictions("grpo-vrex", plan.settings("grpo-vrex"), tuned)


def test_records_of_runs_that_were_not_what_their_name_says_are_withdrawn() -> None:
    records = read_records(ROOT / "docs" / "experiment" / "records.jsonl")
    for record in records.values():
        values = dict(setting.lstrip("+").split("=", 1) for setting in record["settings"])
        is_vrex = "vrex" in record["method"]
        assert ("withdrawn" in record) == (is_vrex and values["air.regularizer"] != "vrex")
    assert sum("withdrawn" in record for record in records.values()) == 13
