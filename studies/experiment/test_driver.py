"""The driver: what is finished is not repeated, what crashed is, and choices are made from finished runs only."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from studies.experiment import driver
from studies.experiment.__main__ import main
from studies.experiment.driver import ATTEMPTS, Experiment
from studies.experiment.plan import Choice, read_plan
from studies.experiment.report import write_report
from studies.experiment.runs import read_records
from studies.experiment.test_plan import write_plan
from tests.conftest import RECIPES
from tests.evaluation.support import rows_of, write_jsonl
from verl_air.errors import ConfigError, DataError

pytestmark = pytest.mark.exhaustive

MEASURED = {"anchor": 0.9, "format": 0.95, "judge": 0.76}
Skill = Callable[[Sequence[str]], float]


class FakeMainPpo:
    """Leaves what ``main_ppo`` would leave, with an accuracy that rises to ``skill``; fails ``crashes`` times first."""

    def __init__(self, skill: Skill = lambda settings: 0.7, crashes: int = 0) -> None:
        self.skill = skill
        self.crashes = crashes
        self.launched: list[tuple[Path, tuple[str, ...]]] = []

    def __call__(self, folder: Path, recipe: str, settings: Sequence[str]) -> int:
        self.launched.append((folder, tuple(settings)))
        chosen = dict(item.lstrip("+").split("=", 1) for item in settings)
        rng = random.Random(f"{chosen['actor_rollout_ref.rollout.seed']}-{sorted(chosen)}")
        (folder / "train.log").write_text("all is well\n")
        if self.crashes:
            self.crashes -= 1
            write_jsonl(folder / "validation" / "1.jsonl", [{"half": "a row"}])
            return 1
        lines = []
        for step in (0, 1, 2):
            skill = 0.3 + (self.skill(settings) - 0.3) * step / 2
            rows = [
                row
                for split in ("id", "ood")
                for row in rows_of(rng, domain="playground", split=split, intents=12, skill=skill)
            ]
            write_jsonl(folder / "validation" / f"{step}.jsonl", rows)
            lines.append({"step": step, "data": {"air/open_reward/mean": skill, "timing_s/step": 1.0}})
        write_jsonl(folder / "metrics.jsonl", lines)
        record = {"git": {"commit": "abc123", "modified": False}, "versions": {"verl": "0.9.1"}}
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "run.json").write_text(json.dumps(record))
        (folder / "checkpoints" / "config.yaml").write_text(yaml.safe_dump(resolved(recipe, settings)))
        return 0


def resolved(recipe: str, settings: Sequence[str]) -> dict[str, Any]:
    """The overrides alone; of a key that is there twice the last value wins, as in Hydra."""
    dotlist = [item.lstrip("+") for item in settings]
    return OmegaConf.to_container(OmegaConf.from_dotlist(dotlist))  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def _no_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building a world takes a minute, and the launcher of these tests needs none."""
    monkeypatch.setattr(driver, "build_playground", lambda *args, **kwargs: {"measured": MEASURED})


def experiment_in(folder: Path, launch: FakeMainPpo, recipes: Path = RECIPES) -> Experiment:
    plan = read_plan(write_plan(folder / "study" / "plan.yaml"))
    return Experiment(plan, folder / "out", recipes, launch, resolved, lambda text: None)


def test_everything_is_run_once(tmp_path: Path) -> None:
    launch = FakeMainPpo()
    experiment = experiment_in(tmp_path, launch)
    for _ in range(2):
        assert experiment.run() == 0
        assert len(launch.launched) == 6


def test_another_clone_resumes_from_the_records_beside_the_plan(tmp_path: Path) -> None:
    first = experiment_in(tmp_path, FakeMainPpo())
    first.run([first.plan.study("first")])
    write_report(first)
    launch = FakeMainPpo()
    clone = Experiment(first.plan, tmp_path / "elsewhere", RECIPES, launch, resolved, lambda text: None)
    assert len(clone.published) == 2
    assert clone.run() == 0
    assert len(launch.launched) == 4
    write_report(clone)
    assert len(read_records(first.plan.path.parent / "records.jsonl")) == 6


def test_a_withdrawn_record_does_not_count_and_is_kept_until_its_run_is_repeated(tmp_path: Path) -> None:
    first = experiment_in(tmp_path, FakeMainPpo())
    first.run([first.plan.study("first")])
    write_report(first)
    path = first.plan.path.parent / "records.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(lines[0]), "withdrawn": "a mistake"}), *lines[1:]]) + "\n")
    launch = FakeMainPpo()
    clone = Experiment(first.plan, tmp_path / "elsewhere", RECIPES, launch, resolved, lambda text: None)
    write_report(clone)
    assert "**Withdrawn: A** (a mistake)." in (path.parent / "results.md").read_text()
    assert "withdrawn" in read_records(path)["a", 9]
    clone.run([clone.plan.study("first")])
    assert len(launch.launched) == 1
    write_report(clone)
    assert "withdrawn" not in read_records(path)["a", 9]


def test_an_archived_plan_is_reported_from_its_records_whatever_became_of_the_recipe(tmp_path: Path) -> None:
    first = experiment_in(tmp_path, FakeMainPpo())
    first.run()
    write_report(first)
    page, records = ((first.plan.path.parent / name).read_bytes() for name in ("results.md", "records.jsonl"))
    plan = first.plan.model_copy(update={"archived": "done"})
    archived = Experiment(plan, tmp_path / "nowhere", tmp_path / "no recipes", FakeMainPpo())
    write_report(archived)
    assert (plan.path.parent / "results.md").read_bytes() == page
    assert (plan.path.parent / "records.jsonl").read_bytes() == records
    with pytest.raises(ConfigError, match="is archived: done"):
        archived.run()


def test_a_world_whose_judge_fell_short_is_named_and_is_in_the_record(tmp_path: Path) -> None:
    said: list[str] = []
    experiment = experiment_in(tmp_path, FakeMainPpo())
    experiment.say = said.append
    experiment.run([experiment.plan.study("first")])
    assert [line for line in said if line.startswith("world 9: the warm start fell short: judge 0.76, expected 0.85")]
    assert experiment.records(experiment.plan.study("first"))["a"][9]["world"] == MEASURED


def test_a_plan_can_refuse_such_a_world_before_its_first_run(tmp_path: Path) -> None:
    launch = FakeMainPpo()
    plan = read_plan(write_plan(tmp_path / "plan.yaml", sound_worlds=True))
    experiment = Experiment(plan, tmp_path / "out", RECIPES, launch, resolved, lambda text: None)
    with pytest.raises(
        ConfigError, match=r"study first: the warm start of world 9 fell short: judge 0\.76.*Replace seed 9"
    ):
        experiment.run()
    assert launch.launched == []


def test_the_worlds_are_those_of_the_plans_setting(tmp_path: Path) -> None:
    plans = [read_plan(write_plan(tmp_path / f"{s}.yaml", setting=s)) for s in ("plain", "hidden")]
    plain, hidden = (Experiment(plan, tmp_path / "out", RECIPES, FakeMainPpo(), resolved) for plan in plans)
    assert hidden.playground.setting == "hidden"
    assert plain.run_of("a", 9).hash != hidden.run_of("a", 9).hash


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"method": "a", "seed": 1}\n{"ha')
    with pytest.raises(DataError, match=r"records\.jsonl, line 2"):
        read_records(tmp_path / "records.jsonl")


def test_seeds_are_the_outer_loop_so_that_pairs_are_whole(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo())
    experiment.run([experiment.plan.study("first")])
    order = [(run.method, run.seed) for run in experiment.runs_of(experiment.plan.study("second"))]
    assert order == [("c", 1), ("d", 1), ("c", 2), ("d", 2)]


def test_a_crashed_run_is_repeated_from_its_start_and_counted(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo(crashes=2))
    assert experiment.run() == 0
    first = experiment.runs_of(experiment.plan.study("first"))[0]
    assert first.record is not None
    assert first.record["attempts"] == 3
    assert [attempt["status"] for attempt in first.attempts] == [1, 1, 0]
    assert sorted(path.name for path in first.folder.glob("train*.log")) == ["train.1.log", "train.2.log", "train.log"]


def test_a_run_that_always_crashes_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo(crashes=ATTEMPTS))
    first, second = experiment.plan.studies
    assert experiment.run([first]) == 1
    assert [run.record is not None for run in experiment.runs_of(first)] == [False, True]
    with pytest.raises(ConfigError, match="has to be finished first"):
        experiment.run([second])


def test_a_run_without_its_validations_is_not_finished(tmp_path: Path) -> None:
    class Forgetful(FakeMainPpo):
        def __call__(self, folder: Path, recipe: str, settings: Sequence[str]) -> int:
            status = super().__call__(folder, recipe, settings)
            (folder / "validation" / "2.jsonl").write_text('{"acc": 1.0, "inten')
            return status

    experiment = experiment_in(tmp_path, Forgetful())
    assert experiment.run([experiment.plan.study("first")]) == 2


def test_the_best_mean_is_chosen_and_hands_over_its_rate_and_nothing_else(tmp_path: Path) -> None:
    launch = FakeMainPpo(skill=lambda settings: 0.9 if "y=2" in settings else 0.4)
    experiment = experiment_in(tmp_path, launch)
    first = experiment.plan.study("first")
    experiment.run([first])
    assert experiment.choice(first) == "b"
    assert experiment.run_of("c", 1).settings[:3] == ("trainer.total_training_steps=2", "z=3", "lr=2")
    assert all("seed" in setting for setting in experiment.run_of("c", 1).settings[3:])


def test_an_arm_that_repeats_a_method_differs_in_its_samples_only(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo())
    experiment.run([experiment.plan.study("first")])
    c, d = (experiment.run_of(method, 1) for method in "cd")
    assert set(c.settings) ^ set(d.settings) == {
        "actor_rollout_ref.rollout.seed=1",
        "actor_rollout_ref.rollout.seed=10001",
    }
    assert c.hash != d.hash


def test_a_method_that_would_run_as_another_one_is_refused_before_it_runs(tmp_path: Path) -> None:
    launch = FakeMainPpo()
    experiment = experiment_in(tmp_path, launch)
    experiment.plan.methods["c"].expect["z"] = 4
    with pytest.raises(ConfigError, match="method c: expects z=4, and the run resolves to 3"):
        experiment.run()
    assert len(launch.launched) == 2  # those of the study before


def test_a_run_that_resolved_to_other_settings_leaves_no_record(tmp_path: Path) -> None:
    class Disobedient(FakeMainPpo):
        def __call__(self, folder: Path, recipe: str, settings: Sequence[str]) -> int:
            return super().__call__(folder, recipe, [*settings, "z=5"] if "z=3" in settings else settings)

    experiment = experiment_in(tmp_path, Disobedient())
    with pytest.raises(ConfigError, match="method c: expects z=3, and the run resolves to 5"):
        experiment.run()
    assert experiment.record("c", 1) is None


def test_the_record_has_the_resolved_settings(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo())
    experiment.run()
    record = experiment.record("d", 2)
    assert record is not None
    assert record["resolved"]["actor_rollout_ref.rollout.seed"] == 10002
    assert record["resolved"]["trainer.total_training_steps"] == 2


def test_a_choice_that_sets_no_rate_is_named(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo())
    experiment.run([experiment.plan.study("first")])
    choose = Choice(source="playground/id", hand_over="optim.lr")
    study = experiment.plan.study("first").model_copy(update={"choose": choose})
    with pytest.raises(ConfigError, match=r"study first chose (a|b), which does not set optim\.lr"):
        experiment.handed_over(study)


def test_stopped_by_hand_it_ends_at_once_and_is_resumed_later(tmp_path: Path) -> None:
    class Stopped(FakeMainPpo):
        def __call__(self, folder: Path, recipe: str, settings: Sequence[str]) -> int:
            if len(self.launched) == 1:
                try:
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
    assert stopped.record is not None
    assert stopped.record["attempts"] == 2


def test_settings_make_the_hash_and_comments_do_not(tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()

    def hashed(method: str = "a", seed: int = 1) -> str:
        return experiment_in(tmp_path, FakeMainPpo(), recipes).run_of(method, seed).hash

    (recipes / "quickstart.yaml").write_text("defaults: [base]\nx: 1 # as it was\n")
    (recipes / "base.yaml").write_text("y: 1\n")
    before = hashed()
    (recipes / "quickstart.yaml").write_text("# another comment\ndefaults: [base]\nx: 1\n")
    assert hashed() == before
    assert hashed(seed=2) != before
    assert hashed("b") != before
    (recipes / "base.yaml").write_text("y: 2\n")
    assert hashed() != before


def test_a_record_of_other_settings_does_not_count(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo())
    experiment.run([experiment.plan.study("first")])
    write_report(experiment)
    assert experiment.record("a", 9) is not None
    other = replace(experiment, playground=replace(experiment.playground, train=60))
    assert other.record("a", 9) is None


def test_the_report_says_what_the_runs_say(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, FakeMainPpo(crashes=1))
    folder = experiment.plan.path.parent
    write_report(experiment)  # of nothing
    assert "Unfinished: 0 of 2 runs" in (folder / "results.md").read_text()
    experiment.run()
    (folder / "stale.svg").write_text("old")
    write_report(experiment)
    page = (folder / "results.md").read_text()
    assert "Unfinished" not in page
    assert "1 attempt(s) crashed" in page
    assert "Commit abc123." in page
    records = read_records(folder / "records.jsonl")
    ends = [records["c", seed]["curves"]["playground/id"]["group_acc"]["2"] for seed in (1, 2)]
    row, *_ = [line for line in page.splitlines() if line.startswith("| C | 2 | ")]
    assert row.startswith(f"| C | 2 | {50 * sum(ends):.1f} % ")
    (same,) = [line for line in page.splitlines() if line.startswith("| D minus C | 2 | group accuracy | ")]
    cells = [cell.strip() for cell in same.strip("|").split("|")]
    assert cells[-1] == cells[5], "D repeats C: its difference is the A/A difference"
    assert "equal methods have a standard deviation of " in page
    assert [path.name for path in folder.glob("*.svg")] == ["second-playground-id.svg"]
    assert "(second-playground-id.svg)" in page
    assert (folder / "second-playground-id.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')


def test_a_study_with_nothing_new_is_mentioned_without_tables(tmp_path: Path) -> None:
    path = write_plan(tmp_path / "plan.yaml")
    content = yaml.safe_load(path.read_text())
    first = {name: value for name, value in content["studies"][0].items() if name != "choose"}
    more = {**first, "name": "more", "title": "More seeds", "seeds": [*first["seeds"], 99]}
    experiment = Experiment(
        read_plan(write_plan(path, studies=[*content["studies"], more])),
        tmp_path / "out",
        RECIPES,
        FakeMainPpo(),
        resolved,
    )
    experiment.run([experiment.plan.study("first")])
    write_report(experiment)
    before, section = (tmp_path / "results.md").read_text().split("## More seeds")
    assert "| method |" in before
    assert "Unfinished: 2 of 4" in section
    assert "|" not in section


def test_the_list_counts_a_run_that_studies_share_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_plan(tmp_path / "plan.yaml")
    content = yaml.safe_load(path.read_text())
    write_plan(path, studies=[*content["studies"], {**content["studies"][1], "name": "third", "seeds": [1, 2, 3]}])
    assert main([str(path), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:5] for line in lines[:3]] == [
        ["first", "2", "runs,", "2", "missing"],
        ["second", "4", "runs,", "4", "missing"],
        ["third", "6", "runs,", "2", "missing"],
    ]
    assert main([str(path), "--list", "--only", "nope"]) == 2
    assert "no study 'nope'; there are first, second, third" in capsys.readouterr().err
