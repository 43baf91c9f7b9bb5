"""What a run leaves in its folder: its record, and metrics that outlive a resume (verl's own logger writes them)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from verl.utils.tracking import FileLogger

from verl_air.training.run_folder import (
    PATH_VARIABLE,
    put_metrics_back,
    remember_command,
    set_metrics_aside,
    write_run_record,
)

TRAINER = SimpleNamespace(logger=["console", "file"])


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "metrics.jsonl"
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    return path


def start(*steps: int, resumed: int = 0, value: float = 0.0) -> None:
    """One start of a run: ``resumed`` is the checkpoint's step, ``steps`` what it logs until it ends or dies."""
    aside = set_metrics_aside(TRAINER)
    logger = FileLogger("project", "run")
    if 0 in steps:
        logger.log({"loss": value}, step=0)
    put_metrics_back(aside, logger, before_step=resumed + 1)
    for step in steps:
        if step:
            logger.log({"loss": value}, step=step)
    logger.finish()


def stored(file: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    return {line["step"]: line["data"]["loss"] for line in lines}


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
    set_metrics_aside(TRAINER)
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


def test_validation_before_resumed_training_comes_before_the_next_step(file: Path) -> None:
    start(1, 2)
    aside = set_metrics_aside(TRAINER)
    logger = FileLogger("project", "run")
    logger.log({"validation": 9.0}, step=2)  # verl validates at the checkpoint's step first
    put_metrics_back(aside, logger, before_step=3)
    logger.log({"loss": 1.0}, step=3)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["step"], *line["data"].items()) for line in lines] == [
        (1, ("loss", 0.0)),
        (2, ("loss", 0.0)),
        (2, ("validation", 9.0)),
        (3, ("loss", 1.0)),
    ]


def test_without_the_file_logger_nothing_is_touched(file: Path) -> None:
    file.write_text('{"step": 1, "data": {}}\n')
    assert set_metrics_aside(SimpleNamespace(logger=["console"])) == []
    assert file.is_file()


def test_the_run_record_resolves_the_recipe_and_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["main_ppo.py", "a=1"])
    remember_command()
    write_run_record(OmegaConf.create({"a": 1, "b": "${a}"}), tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").read_text() == "a: 1\nb: 1\n"
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["command"].endswith("main_ppo.py a=1")
    assert record["versions"]["verl"] == "0.9.1"
