"""What a run leaves in its folder: its record, and metrics that outlive a resume (verl's own logger writes them)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from verl.utils.tracking import FileLogger

from verl_air.evaluation.report import summarise
from verl_air.training.redaction import COMMAND_VARIABLE, HIDDEN, PATH_VARIABLE, REFERENCES_VARIABLE
from verl_air.training.run_folder import put_metrics_back, set_metrics_aside, write_run_record


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The metrics file of a recipe whose run_dir is ``tmp_path / "run"``; no variable names it."""
    monkeypatch.setenv(PATH_VARIABLE, "")  # so that monkeypatch restores what set_metrics_aside sets
    monkeypatch.delenv(PATH_VARIABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run" / "metrics.jsonl"


def recipe(*logger: str) -> DictConfig:
    return OmegaConf.create({"run_dir": "run", "trainer": {"logger": list(logger), "default_local_dir": "elsewhere"}})


def start(*steps: int, resumed: int = 0, value: float = 0.0) -> None:
    """One start of a run: ``resumed`` is the checkpoint's step, ``steps`` what it logs until it ends or dies."""
    aside = set_metrics_aside(recipe("console", "file"))
    logger = FileLogger("project", "run")
    if 0 in steps:
        logger.log({"air/loss": value}, step=0)
    put_metrics_back(aside, logger, before_step=resumed + 1)
    for step in steps:
        if step:
            logger.log({"air/loss": value}, step=step)
    logger.finish()


def stored(file: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    return {line["step"]: line["data"]["air/loss"] for line in lines}


def test_a_resumed_run_keeps_its_earlier_steps(file: Path) -> None:
    start(0, 1, 2, 3)
    start(4, 5, resumed=3, value=1.0)
    assert stored(file) == {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0, 4: 1.0, 5: 1.0}
    assert [path.name for path in file.parent.iterdir()] == ["metrics.jsonl"]


def test_steps_done_again_are_those_of_the_resumed_run_and_the_old_ones_stay_aside(file: Path) -> None:
    start(1, 2, 3, 4)
    start(3, 4, 5, resumed=2, value=1.0)
    assert stored(file) == {1: 0.0, 2: 0.0, 3: 1.0, 4: 1.0, 5: 1.0}
    assert stored(file.with_name("metrics.1.jsonl")) == {1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0}


def test_a_start_that_died_before_training_began_loses_nothing(file: Path) -> None:
    start(1, 2)
    set_metrics_aside(recipe("console", "file"))
    FileLogger("project", "run").finish()  # opened, and then the run died
    start(3, resumed=2, value=1.0)
    assert stored(file) == {1: 0.0, 2: 0.0, 3: 1.0}


def test_a_line_cut_off_is_not_put_back_and_not_lost(file: Path) -> None:
    start(1, 2)
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"step":3,"da')
    start(3, resumed=2, value=1.0)
    assert stored(file) == {1: 0.0, 2: 0.0, 3: 1.0}
    assert file.with_name("metrics.1.jsonl").read_bytes() == whole + b'{"step":3,"da'


def test_a_run_from_the_start_takes_nothing_of_another(file: Path) -> None:
    start(1, 2)
    start(1, value=1.0)
    assert stored(file) == {1: 1.0}
    assert stored(file.with_name("metrics.1.jsonl")) == {1: 0.0, 2: 0.0}


def test_killed_and_resumed_twice_each_step_is_there_once_and_the_report_has_the_whole_curve(file: Path) -> None:
    start(0, 1, 2, 3, 4)  # checkpoint of step 2; killed after step 4
    for resumed, steps in ((2, (3, 4, 5)), (4, (5, 6))):
        aside = set_metrics_aside(recipe("file"))
        logger = FileLogger("project", "run")
        logger.log({"val": 9.0}, step=resumed)  # verl validates at the checkpoint's step first
        put_metrics_back(aside, logger, before_step=resumed + 1)
        for step in steps:
            logger.log({"air/loss": float(resumed)}, step=step)
        logger.finish()
    assert stored(file) == {0: 0.0, 1: 0.0, 2: 0.0, 3: 2.0, 4: 2.0, 5: 4.0, 6: 4.0}
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [*range(7)]
    (run,) = summarise([file.parent], [None]).runs
    assert run.curves["air/loss"] == {0: 0.0, 1: 0.0, 2: 0.0, 3: 2.0, 4: 2.0, 5: 4.0, 6: 4.0}
    assert run.folder.metrics["val"] == {2: 9.0, 4: 9.0}


def test_a_path_that_the_user_names_is_kept(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "mine.jsonl"))
    start(1)
    assert stored(tmp_path / "mine.jsonl") == {1: 0.0}
    assert not file.exists()


def test_without_the_file_logger_nothing_is_touched(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"step": 1, "data": {}}\n')
    assert set_metrics_aside(recipe("console")) == []
    assert file.is_file()


def test_the_run_record_resolves_the_recipe_but_not_what_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COMMAND_VARIABLE, "main_ppo.py a=1")
    monkeypatch.setenv(REFERENCES_VARIABLE, json.dumps([[["c"], "${oc.env:HOME}"], [["gone", 0], "${oc.env:HOME}"]]))
    env_vars = {"ray_init": {"runtime_env": {"env_vars": {"NCCL_DEBUG": "INFO"}}}}
    write_run_record(OmegaConf.create({"a": 1, "b": "${a}", "c": "/home/me", "ray_kwargs": env_vars}), tmp_path / "run")
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (stored["a"], stored["b"], stored["c"]) == (1, 1, "${oc.env:HOME}")
    assert stored["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"] == {"NCCL_DEBUG": HIDDEN}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["command"] == "main_ppo.py a=1"
    assert record["versions"]["verl"] == "0.9.1"
