"""The plan file: what is wrong is named; and the archived plan with its records is as the pages say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from studies.experiment.driver import refuse_contradictions, resolve
from studies.experiment.plan import read_plan
from studies.experiment.power import detectable_difference
from studies.experiment.runs import curves_in, read_records, refuse_other_settings
from verl_air.errors import ConfigError
from verl_air.evaluation import Curves, seed_differences
from verl_air.evaluation.tables import points

pytestmark = pytest.mark.exhaustive

FOLDER = Path(__file__).parent
ARCHIVED = read_plan(FOLDER / "plan.yaml")
PLANNED = read_plan(FOLDER.with_name("regularizers") / "plan.yaml")


def write_plan(path: Path, **changes: Any) -> Path:
    """A plan of four methods and a study that chooses, with changes."""
    first = {"name": "first", "question": "?", "methods": ["a", "b"], "seeds": [9]}
    plan: dict[str, Any] = {
        "recipe": "quickstart",
        "common": ["trainer.total_training_steps=2"],
        "measure": {"steps": [1, 2], "sources": ["playground/id"]},
        "methods": {
            "a": {"title": "A", "set": ["x=1", "lr=1"]},
            "b": {"title": "B", "extends": "a", "set": ["y=2", "lr=2"]},
            "c": {"title": "C", "set": ["z=3"], "tuned_by": "first", "expect": {"z": 3}},
            "d": {"title": "D", "repeats": "c"},
        },
        "studies": [
            {**first, "choose": {"source": "playground/id", "hand_over": "lr"}},
            {"name": "second", "question": "?", "methods": ["c", "d"], "seeds": [1, 2], "against": "c", "charts": True},
        ],
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    return path


def test_settings_are_the_common_ones_then_those_it_extends_then_its_own(tmp_path: Path) -> None:
    plan = read_plan(write_plan(tmp_path / "plan.yaml"))
    assert plan.settings("b") == ["trainer.total_training_steps=2", "x=1", "lr=1", "y=2", "lr=2"]
    assert plan.tuned_by("b") is None
    assert plan.tuned_by("d") is plan.study("first")


PAIR = {"a": {"title": "A"}, "b": {"title": "B", "repeats": "a"}}
STUDY = {"name": "s", "question": "?", "methods": ["a"], "seeds": [1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipes": "x"}, r"plan\.yaml: plan\.recipes: unknown key \(did you mean 'recipe'\?\)"),
        ({"studies": []}, "studies need names"),
        ({"studies": [STUDY, STUDY]}, "studies need names, each once"),
        ({"studies": [{**STUDY, "seed": [1]}]}, r"study\.seed: unknown key"),
        ({"measure": {"steps": [2], "sources": ["s"]}}, "two or more rising steps"),
        ({"measure": {"steps": [1, 2]}}, r"measure\.sources: missing"),
        ({"methods": {"a": {"title": "A", "extends": "b"}, "b": {"title": "B", "extends": "a"}}}, "extends itself"),
        ({"methods": {"a": {"title": "A", "extends": "nobody"}}}, "no method 'nobody'"),
        ({"studies": [{**STUDY, "methods": ["e"]}]}, "no method 'e'"),
        ({"studies": [{**STUDY, "seeds": [1, 1]}]}, "each once"),
        ({"studies": [{**STUDY, "against": "b"}]}, "not among"),
        (
            {"studies": [{**STUDY, "against": "a"}]},
            "compares with a and has no A/A arm; add a method with `repeats: a`",
        ),
        (
            {"methods": {**PAIR, "b": {"title": "B", "repeats": "a", "set": ["x=2"]}}},
            "repeats a, so it has no settings",
        ),
        ({"methods": PAIR, "studies": [{**STUDY, "methods": ["a", "b"], "against": "a"}]}, "method a: add `expect`"),
        ({"studies": [{**STUDY, "methods": ["c"]}]}, "no study 'first'"),
        ({"studies": [{**STUDY, "choose": {"source": "elsewhere"}}]}, "choose.source must be one of playground/id"),
        ({"studies": [{**STUDY, "choose": {"source": "playground/id", "by": "luck"}}]}, r"choose\.by: 'luck'"),
        ({"studies": [{**STUDY, "choose": {"source": "playground/id", "of": "luck"}}]}, "of must be one of group_acc"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_plan(write_plan(tmp_path / "plan.yaml", **changes))


def test_a_choice_must_come_before_it_is_used_and_is_made_among_methods_that_are_not_tuned(tmp_path: Path) -> None:
    path = write_plan(tmp_path / "plan.yaml")
    first, second = yaml.safe_load(path.read_text())["studies"]
    with pytest.raises(ConfigError, match="must come first"):
        read_plan(write_plan(path, studies=[second, first]))
    with pytest.raises(ConfigError, match="its method c is tuned itself"):
        read_plan(write_plan(path, studies=[first, {**first, "name": "again", "methods": ["c"]}]))


def test_the_archived_plan_has_what_was_promised() -> None:
    by_name = {study.name: study for study in ARCHIVED.studies}
    assert by_name["methods-10"].methods == ("grpo", "grpo-vrex", "grpo-air", "gspo", "gspo-air")
    assert len(by_name["methods-10"].seeds) == 10
    assert all(len(study.seeds) >= 3 for study in ARCHIVED.studies)
    chosen_on = {seed for study in ARCHIVED.studies if study.choose for seed in study.seeds}
    compared_on = {seed for study in ARCHIVED.studies if not study.choose for seed in study.seeds}
    assert not chosen_on & compared_on


def test_the_archived_plan_names_each_key_once() -> None:
    """YAML takes the last of two equal keys without a word."""

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[object, object]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return {loader.construct_object(k): loader.construct_object(v, deep=True) for k, v in node.value}

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    yaml.load((FOLDER / "plan.yaml").read_text(), Loader=Strict)


def test_a_tuned_method_cannot_be_run_as_another_one() -> None:
    """The thirteen runs called V-REx that were GRPO: what tuning appended came last, and won."""
    tuned = ARCHIVED.methods["grpo-lr-8e-4"].set
    refuse_contradictions("grpo", ARCHIVED.settings("grpo"), tuned)
    with pytest.raises(ConfigError, match=r"grpo-vrex: sets air.regularizer=vrex, and tuning would run it with none"):
        refuse_contradictions("grpo-vrex", ARCHIVED.settings("grpo-vrex"), tuned)


def test_records_of_runs_that_were_not_what_their_name_says_are_withdrawn() -> None:
    records = read_records(FOLDER / "records.jsonl")
    assert len(records) == 105
    for record in records.values():
        values = dict(setting.lstrip("+").split("=", 1) for setting in record["settings"])
        is_vrex = "vrex" in record["method"]
        assert ("withdrawn" in record) == (is_vrex and values["air.regularizer"] != "vrex")
    assert sum("withdrawn" in record for record in records.values()) == 13


def test_the_page_quotes_what_the_records_say() -> None:
    """The A/A difference, and the planned comparison with either of the two GRPO arms."""
    curves: dict[str, dict[int, Curves]] = {}
    for (method, seed), record in read_records(FOLDER / "records.jsonl").items():
        found = curves_in(record)
        for metrics in found.values():
            for curve in metrics.values():
                curve.pop(0, None)
        curves.setdefault(method, {})[seed] = found
    page = (FOLDER / "README.md").read_text()
    for method, against in (("grpo-vrex", "grpo"), ("grpo-air", "grpo"), ("grpo-air", "grpo-vrex")):
        both = {name: curves[name] for name in (method, against)}
        cells = []
        for source in ARCHIVED.measure.sources:
            (difference,) = seed_differences(both, against, source, "group_acc")
            cells += [points(estimate).replace(" points", "") for estimate in (difference.end, difference.area)]
        assert " | ".join(cells) in page.replace("**", "")


def test_the_next_plan_asks_for_what_was_promised_and_each_method_resolves_to_itself() -> None:
    methods, seeds = PLANNED.study("methods"), PLANNED.study("seeds-20").seeds
    assert methods.methods == ("grpo", "grpo-again", "group", "air", "vrex")
    assert seeds[:10] == methods.seeds == tuple(range(1, 11))
    assert PLANNED.repeats("grpo-again") == methods.against == "grpo"
    searches = [study for study in PLANNED.studies if study.choose]
    assert {study.name for study in searches} == {f"rate-{name}" for name in ("grpo", "group", "air", "vrex")}
    assert not {seed for study in searches for seed in study.seeds} & set(seeds)
    rates = [[PLANNED.settings(name)[-1] for name in study.methods] for study in searches]
    assert rates == [[f"actor_rollout_ref.actor.optim.lr={rate}" for rate in ("2e-4", "4e-4", "8e-4")]] * 4
    for name in ("any-grpo", "any-air", "any-group", "any-vrex"):
        assert PLANNED.settings(name)[-1] != PLANNED.settings(f"{name.removeprefix('any-')}-4e-4")[-1]
        refuse_other_settings(name, PLANNED.expected(name), resolve(PLANNED.recipe, PLANNED.settings(name)))


def test_what_a_design_can_see_is_that_of_a_paired_t_test() -> None:
    # By simulation: that share of 20,000 experiments with ten pairs finds a true difference of this size.
    seen = detectable_difference(0.115, 10)
    pairs = np.random.default_rng(0).normal(seen, 0.115, size=(20_000, 10))
    assert (stats.ttest_1samp(pairs, 0.0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)
    assert 0.11 < seen < 0.12
