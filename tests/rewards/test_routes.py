"""Routes: which reward scores a row, what is refused, and what one recipe inherits from another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tests.conftest import RECIPES
from tests.rewards.support import finish, respond, row
from verl_air.compose import read_recipe
from verl_air.errors import ConfigError, RewardError
from verl_air.rewards import ScoringPlan, compute_score

SPECIFIC = {
    "*": "math",
    "*/open": "refusal_keywords",
    "play/*": "format",
    "play/open": "true_false",
    "play/open/train": "exact_match",
}


@pytest.mark.parametrize("every_row", ["*", "*/*", "*/*/*"])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("play/open/train", "exact_match"),
        ("play/open/ood", "true_false"),
        ("play/anchor/ood", "format"),
        ("lab/open/train", "refusal_keywords"),
        ("lab/anchor/train", "math"),
    ],
)
def test_the_most_specific_route_wins(place: str, name: str, every_row: str) -> None:
    domain, role, split = place.split("/")
    plan = ScoringPlan({every_row if key == "*" else key: value for key, value in SPECIFIC.items()})
    assert plan.reward_for(f"{domain}/{split}", row(domain, role, split)).reward.name == name


def test_no_route_names_the_source_and_the_known_routes() -> None:
    routes = {"safety/anchor": "multiple_choice", "safety/open/train": "refusal_keywords"}
    with pytest.raises(RewardError, match=r"'math/train'.*safety/anchor, safety/open/train"):
        ScoringPlan(routes).reward_for("math/train", row("math"))


def test_domain_and_split_come_from_the_data_source_where_the_row_lacks_them() -> None:
    plan = ScoringPlan({"safety/anchor/ood": "multiple_choice"})
    assert plan.reward_for("safety/ood", {"role": "anchor"}).reward.name == "multiple_choice"


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ({}, "routes is empty"),
        (None, "routes is not set"),
        ({"safety": "math"}, "not <domain>/<role>"),
        ({"safety/": "math"}, "not <domain>/<role>"),
        ({"safety/anchor/id/x": "math"}, "not <domain>/<role>"),
        ({"safety/anker": "math"}, "role must be"),
        ({"*": "math", "*/*": "format"}, r"'\*/\*' matches the same rows"),
        ({"safety/anchor": "multiple_choise"}, "did you mean 'multiple_choice'"),
        ({"safety/anchor": "nothing_like_it"}, "registered: .*exact_match.*true_false"),
        ({"safety/anchor": {"name": "true_false", "rihgt": 1.0}}, "unknown option 'rihgt' .did you mean 'right'"),
        ({"safety/anchor": {"name": "true_false", "right": "much"}}, "'right' must be a number"),
        ({"safety/anchor": {"name": "true_false", "right": -3.0}}, "must be below the best"),
        ({"safety/anchor": {"right": 1.0}}, "must lead to a name"),
        ({"safety/open": "verdict_judge"}, "option 'template' has no default"),
        ({"safety/open": {"name": "verdict_judge", "template": "Is it good?"}}, "would judge nothing"),
        ({"safety/open": {"name": "safety_judge", "aggregation": "all"}}, "any, majority, mean"),
        ({"safety/open": {"name": "safety_judge", "facets": "/nowhere.yaml"}}, "cannot read the facets"),
    ],
)
def test_a_faulty_route_is_refused_before_anything_starts(routes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoringPlan(routes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modules": ["acme_rewards"]}, r"acme_rewards.*PYTHONPATH"),
        ({"modules": "a_string"}, r"write \[a_string\]"),
        ({"options": {"no_such_reward": {}}}, "no reward named 'no_such_reward'"),
        ({"format": {"bonus": 1.0}}, r"format\.bonus: unknown key"),
        ({"judgement": {}}, r"reward_kwargs: unknown key\(s\) judgement; known: routes, "),
        ({"judge": {"base_urls": "http://x"}}, r"judge\.base_urls: unknown key .did you mean 'base_url'"),
        ({"judge": {"base_url": "host:80"}}, r"judge\.base_url: 'host:80'"),
        ({"judge": {"attempts": 0}}, r"judge\.attempts: 0 should be greater than 0"),
        ({"judge": {"max_concurrency": True}}, r"judge\.max_concurrency: True"),
        ({"judge": {"request_timeout_s": "soon"}}, r"judge\.request_timeout_s: 'soon'"),
        ({"judge": {"in_process": "x", "base_url": "http://x/v1"}}, "judge: .*two ways"),
        ({"judge": {"in_proces": "x"}}, "did you mean 'in_process'"),
    ],
)
def test_other_faulty_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoringPlan({"*": "true_false"}, **settings)


def test_shared_options_apply_to_every_route_and_a_route_overrides_them() -> None:
    routes = {"a/anchor": "true_false", "b/anchor": {"name": "true_false", "right": 2.0}}
    plan = ScoringPlan(routes, options={"true_false": {"right": 5.0}})
    assert [plan.reward_for(f"{domain}/id", row(domain)).high for domain in "ab"] == [5.0, 2.0]


def test_omegaconf_settings_are_read_as_verl_passes_them() -> None:
    config = OmegaConf.create({"right": 3.0, "kwargs": {"routes": {"*": {"name": "true_false", "right": "${right}"}}}})
    result = finish(compute_score("a/id", respond("true"), "true", row(), **dict(config.kwargs)))
    assert result["task_reward"] == 3.0


# -- a recipe that includes another ----------------------------------------------------------------------------------

IN_RECIPE = "reward.custom_reward_function.reward_kwargs"


def composed(folder: Path, included: dict[str, Any], own: dict[str, Any]) -> ScoringPlan:
    """The plan of a recipe that includes another, composed as main_ppo composes it."""
    for name, kwargs in (("included", included), ("mine", own)):
        recipe = OmegaConf.create({"defaults": ["included", "_self_"]} if name == "mine" else {})
        OmegaConf.update(recipe, IN_RECIPE, kwargs, force_add=True)
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(recipe))
    return ScoringPlan(**OmegaConf.select(read_recipe("mine", config_dir=folder), IN_RECIPE))


INLINE = {"routes": {"safety/open": {"name": "verdict_judge", "template": "{response}", "right": 9.0}}}
SHARED = {
    "routes": {"safety/open": "verdict_judge"},
    "options": {"verdict_judge": {"template": "{response}", "right": 9.0}},
}


@pytest.mark.parametrize(
    ("included", "route"),
    [
        (INLINE, "true_false"),
        (SHARED, "true_false"),
        (SHARED, {"name": "true_false"}),
        (SHARED, {"name": "true_false", "wrong": -1.0}),
    ],
)
def test_another_reward_for_a_route_does_not_inherit_options(
    tmp_path: Path, included: dict[str, Any], route: Any
) -> None:
    plan = composed(tmp_path, included, {"routes": {"safety/open": route}})
    bound = plan.reward_for("safety/train", row("safety", "open"))
    assert (bound.reward.name, dict(bound.options)) == ("true_false", {"right": 1.25, "wrong": -1.0})


def test_an_option_inherited_from_the_replaced_route_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'template'.*verdict_judge.*inherited.*plain name true_false.*options\.true"
    ):
        composed(tmp_path, INLINE, {"routes": {"safety/open": {"name": "true_false"}}})


def test_shipped_recipes_give_options_by_reward_so_that_no_route_passes_them_on() -> None:
    found = 0
    for file in RECIPES.rglob("*.yaml"):
        routes = OmegaConf.select(OmegaConf.create(yaml.safe_load(file.read_text()) or {}), f"{IN_RECIPE}.routes") or {}
        assert all(isinstance(route, str) for route in routes.values()), f"{file}: write options under `options`"
        found += len(routes)
    assert found


JUDGES = {"guard": {"base_url": "http://localhost:1/v1"}, "moral": {"in_process": "folder"}}
ASK = {"name": "verdict_judge", "template": "Is {response} good?"}


@pytest.mark.parametrize(
    ("settings", "route", "expected"),
    [
        ({}, ASK, "verl"),
        ({"judge": {"base_url": "http://localhost:1/v1"}}, ASK, "verl"),
        ({"judges": {"guard": JUDGES["guard"]}}, ASK, "guard"),
        ({"judges": JUDGES}, {**ASK, "judge": "moral"}, "moral"),
        ({"judges": JUDGES}, {**ASK, "judge": "verl"}, "verl"),
        ({"judges": JUDGES, "options": {"verdict_judge": {"judge": "guard"}}}, ASK, "guard"),
        ({"judges": JUDGES}, "format", None),
    ],
)
def test_a_route_names_its_judge(settings: dict[str, Any], route: Any, expected: str | None) -> None:
    plan = ScoringPlan({"*": route}, **settings)
    bound = plan.reward_for("lab/train", row())
    assert bound.judge == expected
    assert expected is None or plan.judge_of(bound).is_elsewhere == (expected != "verl" or "judge" in settings)


@pytest.mark.parametrize(
    ("settings", "route", "message"),
    [
        ({"judges": JUDGES}, ASK, r"'\*' must name one of several judges: judge: guard | moral"),
        ({"judges": JUDGES}, {**ASK, "judge": "gaurd"}, r"no judge 'gaurd' \(did you mean 'guard'\?\).*moral, verl"),
        ({"judges": JUDGES}, {"name": "format", "judge": "guard"}, "unknown option 'judge'"),
        ({"judges": JUDGES}, {**ASK, "judge": 1}, "must be the name of a judge"),
        ({"judges": {"guard": {}}}, ASK, r"judges\.guard: set base_url or in_process"),
        ({"judges": {"guard": {"base_urll": "x"}}}, ASK, r"judges\.guard\.base_urll: unknown key"),
        ({"judges": ["guard"]}, ASK, "a name and settings for each judge"),
        ({"judges": JUDGES, "judge": {"min_mass": 0.1}}, ASK, "judge is the short form"),
    ],
)
def test_judges_that_cannot_work_are_refused(settings: dict[str, Any], route: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoringPlan({"*": route}, **settings)
