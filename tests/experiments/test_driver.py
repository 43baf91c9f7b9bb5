"""The driver: what is finished is not repeated, what crashed is, and choices are made from finished runs only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.conftest import RECIPES
from tests.experiments.support import FakeMainPpo
from tests.experiments.test_plan import write
from verl_air.errors import ConfigError, DataError
from verl_air.experiments import driver as driver_module
from verl_air.experiments.driver import ATTEMPTS, Experiment, whole_length
from verl_air.experiments.plan import read_plan
from verl_air.experiments.report import write_report
from verl_air.experiments.runs import read_records

MEASURED = {"anchor": 0.9, "format": 0.95, "judge": 0.76}


@pytest.fixture(autouse=True)
def _no_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world takes a minute, and the launcher of these tests looks at none."""
    monkeypatch.setattr(driver_module, "build_playground", lambda *args, **kwargs: {"measured": MEASURED})


def experiment_in(folder: Path, launch: FakeMainPpo, recipes: Path = RECIPES) -> Experiment:
    plan = read_plan(write(folder / "plan.yaml"))
    return Experiment(plan, folder / "out", recipes, launch, say=lambda text: None)


def test_everything_is_run_once_and_shared_settings_are_shared(tmp_path: Path) -> None:
    """Six runs are asked for; ``d`` has the settings of ``c``, whatever it is called."""
    launch = FakeMainPpo()
    experiment = experiment_in(tmp_path, launch)
    assert experiment.run() == 0
    assert len(launch.launched) == 4
    assert experiment.run() == 0
    assert len(launch.launched) == 4
    records = experiment.records(experiment.plan.study("second"))
    assert records["c"][1] == records["d"][1]
    assert sum(new for _, _, new in whole_length(experiment)) == 4


def test_another_clone_goes_on_from_the_published_records(tmp_path: Path) -> None:
    first = experiment_in(tmp_path, FakeMainPpo())
    first.run([first.plan.study("first")])
    write_report(first, tmp_path / "docs")
    launch = FakeMainPpo()
    published = read_records(tmp_path / "docs" / "records.jsonl")
    assert len(published) == 2
    clone = Experiment(first.plan, tmp_path / "elsewhere", RECIPES, launch, say=lambda text: None, published=published)
    assert clone.run() == 0
    assert len(launch.launched) == 2
    write_report(clone, tmp_path / "docs")
    assert len(read_records(tmp_path / "docs" / "records.jsonl")) == 4


def test_a_world_whose_judge_fell_short_is_named_and_stands_in_the_record(tmp_path: Path) -> None:
    said: list[str] = []
    experiment = experiment_in(tmp_path, FakeMainPpo())
    experiment.say = said.append
    experiment.run([experiment.plan.study("first")])
    assert [line for line in said if line.startswith("world 9: the warm start fell short: judge 0.76, expected 0.85")]
    assert experiment.run_of("a", 9).finished["world"] == MEASURED


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"hash": "a"}\n{"ha')
    with pytest.raises(DataError, match=r"records\.jsonl, line 2"):
        read_records(tmp_path / "records.jsonl")


def test_seeds_are_the_outer_loop_so_that_pairs_are_whole(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo())
    experiment.run([experiment.plan.study("first")])
    order = [(run.method, run.seed) for run in experiment.runs_of(experiment.plan.study("second"))]
    assert order == [("c", 1), ("d", 1), ("c", 2), ("d", 2)]


def test_methods_can_be_picked_so_that_what_matters_most_goes_first(tmp_path: Path) -> None:
    launch = FakeMainPpo()
    experiment = experiment_in(tmp_path, launch)
    first = experiment.plan.study("first")
    picked = first.methods[:1]
    assert experiment.run([first], picked) == 0
    done = [run.method for run in experiment.runs_of(first) if run.finished]
    assert done == [name for name in picked for _ in first.seeds]
    assert len(launch.launched) == len(done)


def test_a_method_of_no_chosen_study_is_named(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo())
    with pytest.raises(ConfigError, match=r"no such method in the chosen studies: nope\. There are: "):
        experiment.run([experiment.plan.study("first")], ["nope"])


def test_a_crashed_run_is_repeated_from_its_start_and_counted(tmp_path: Path) -> None:
    launch = FakeMainPpo(crashes=2)
    experiment = experiment_in(tmp_path, launch)
    assert experiment.run() == 0
    first = experiment.runs_of(experiment.plan.study("first"))[0]
    assert first.finished is not None
    assert first.finished["attempts"] == 3
    assert [attempt["status"] for attempt in first.attempts] == [1, 1, 0]
    assert sorted(path.name for path in first.folder.glob("train*.log")) == ["train.1.log", "train.2.log", "train.log"]


def test_a_run_that_always_crashes_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    launch = FakeMainPpo(crashes=ATTEMPTS)
    experiment = experiment_in(tmp_path, launch)
    assert experiment.run([experiment.plan.study("first")]) == 1
    finished = [run.finished is not None for run in experiment.runs_of(experiment.plan.study("first"))]
    assert finished == [False, True]
    with pytest.raises(ConfigError, match="has to be finished first"):
        experiment.run([experiment.plan.study("second")])


def test_a_run_without_its_validations_is_not_finished(tmp_path: Path) -> None:
    class Forgetful(FakeMainPpo):
        def __call__(self, folder: Path, recipe: str, settings: Sequence[str]) -> int:
            status = super().__call__(folder, recipe, settings)
            (folder / "validation" / "2.jsonl").write_text('{"acc": 1.0, "inten')
            return status

    experiment = experiment_in(tmp_path, Forgetful())
    assert experiment.run([experiment.plan.study("first")]) == 2


def test_the_choice_is_the_best_mean_and_its_own_settings_come_last(tmp_path: Path) -> None:
    launch = FakeMainPpo(skill=lambda folder, settings: 0.9 if "y=2" in settings else 0.4)
    experiment = experiment_in(tmp_path, launch)
    experiment.run([experiment.plan.study("first")])
    assert experiment.choice(experiment.plan.study("first")) == "b"
    assert [s for s in experiment.run_of("c", 1).settings if "seed" not in s][-2:] == ["z=3", "y=2"]


def test_stopped_by_hand_it_ends_at_once_and_goes_on_later(tmp_path: Path) -> None:
    class Stopped(FakeMainPpo):
        def __call__(self, folder: Path, recipe: str, settings: Sequence[str]) -> int:
            if len(self.launched) == 1:
                try:
                    import signal

                    signal.raise_signal(signal.SIGINT)
                except KeyboardInterrupt:  # as the quickstart's launcher does
                    self.launched.append((folder, ()))
                    return -15
            return super().__call__(folder, recipe, settings)

    launch = Stopped()
    experiment = experiment_in(tmp_path, launch)
    with pytest.raises(KeyboardInterrupt):
        experiment.run()
    assert len(launch.launched) == 2
    assert experiment.run() == 0
    stopped = experiment.runs_of(experiment.plan.study("first"))[1]
    assert stopped.finished is not None
    assert stopped.finished["attempts"] == 2


def test_settings_make_the_hash_and_comments_do_not(tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "quickstart.yaml").write_text("defaults: [base]\nx: 1 # as it was\n")
    (recipes / "base.yaml").write_text("y: 1\n")
    experiment = experiment_in(tmp_path, FakeMainPpo(), recipes)
    before = experiment.run_of("a", 1).hash
    (recipes / "quickstart.yaml").write_text("# another comment\ndefaults: [base]\nx: 1\n")
    assert experiment.run_of("a", 1).hash == before
    assert experiment.run_of("a", 2).hash != before
    assert experiment.run_of("b", 1).hash != before
    (recipes / "base.yaml").write_text("y: 2\n")
    assert experiment.run_of("a", 1).hash != before


def test_a_marker_of_other_settings_does_not_count(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo())
    experiment.run([experiment.plan.study("first")])
    run = experiment.runs_of(experiment.plan.study("first"))[0]
    marker = run.folder / "finished.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "hash": "another"}))
    assert run.finished is None


def test_the_report_says_what_the_runs_say(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo(crashes=1))
    out = tmp_path / "docs"
    write_report(experiment, out)  # of nothing
    assert "Unfinished: 0 of 2 runs" in (out / "results.md").read_text()
    experiment.run()
    (out / "stale.svg").write_text("old")
    write_report(experiment, out)
    page = (out / "results.md").read_text()
    assert "Unfinished" not in page
    assert "1 attempt(s) crashed" in page
    assert "| D minus C | 2 | group accuracy | +0.0 points | - | +0.0 points | - | 0 of 2 |" in page
    results = json.loads((out / "results.json").read_text())
    assert results["commits"] == ["abc123"]
    (row,) = [
        row
        for study in results["studies"]
        for row in study["rows"]
        if (study["name"], row["method"], row["source"], row["metric"]) == ("second", "c", "playground/id", "group_acc")
    ]
    ends = [run["curves"]["playground/id"]["group_acc"]["2"] for run in results["runs"] if "z=3" in run["settings"]]
    assert len(ends) == 2
    assert row["end"]["value"] == pytest.approx(sum(ends) / 2)
    assert not (out / "stale.svg").exists()
    charts = {name: (out / name).read_text() for name in (path.name for path in out.glob("*.svg"))}
    assert all(name in page for name in charts)
    assert all(text.startswith('<svg xmlns="http://www.w3.org/2000/svg"') for text in charts.values())


def test_the_shipped_plan_is_valid_yaml_without_duplicates() -> None:
    """YAML takes the last of two equal keys without a word."""

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[object, object]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return {loader.construct_object(k): loader.construct_object(v, deep=True) for k, v in node.value}

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    yaml.load((RECIPES / "experiment" / "plan.yaml").read_text(), Loader=Strict)


def test_a_study_with_nothing_new_is_mentioned_and_not_drawn(tmp_path: Path) -> None:
    path = write(tmp_path / "plan.yaml")
    content = yaml.safe_load(path.read_text())
    first = {name: value for name, value in content["studies"][0].items() if name != "choose"}
    more = {**first, "name": "more", "title": "More seeds", "seeds": [*first["seeds"], 99]}
    content["studies"].append(more)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    experiment = Experiment(read_plan(path), tmp_path / "out", RECIPES, FakeMainPpo(), say=lambda text: None)
    experiment.run([experiment.plan.study("first")])
    write_report(experiment, tmp_path / "docs")
    before, section = (tmp_path / "docs" / "results.md").read_text().split("## More seeds")
    assert "| method |" in before
    assert "Unfinished: 2 of" in section
    assert "|" not in section.split("## ")[0]
    assert not list((tmp_path / "docs").glob("more-*.svg"))
