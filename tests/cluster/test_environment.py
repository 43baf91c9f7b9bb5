"""What nodes must share: variables, the working folder, the run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from verl_air.cluster.environment import FORWARDED, NodeQuestion, differences, probe_in, surroundings, variables_of
from verl_air.errors import ConfigError

SECRET = "canary-of-a-node"


@pytest.mark.parametrize(
    ("settings", "variables"),
    [
        ({"judge": {"api_key_env": "MY_JUDGE"}}, ("MY_JUDGE",)),
        ({"judges": {"verl": None, "a": {"api_key_env": "A_KEY"}, "b": {"api_key_env": "B_KEY"}}}, ("A_KEY", "B_KEY")),
        ({}, ()),
    ],
)
def test_a_recipes_judges_add_the_variables_of_their_keys(settings: dict, variables: tuple[str, ...]) -> None:
    config = OmegaConf.create({"reward": {"custom_reward_function": {"reward_kwargs": settings}}})
    assert variables_of(config) == (*FORWARDED, *variables)
    assert variables_of(OmegaConf.create({})) == FORWARDED
    assert {"WANDB_API_KEY", "HF_TOKEN", "VERL_FILE_LOGGER_PATH"} <= set(FORWARDED)


CASES = {
    "equal": ({"HF_TOKEN": SECRET}, ".", True, []),
    "variable missing": ({"HF_TOKEN": None}, ".", True, ["the variable HF_TOKEN is not set there"]),
    "variable differs": ({"HF_TOKEN": "other"}, ".", True, ["the variable HF_TOKEN has another value there"]),
    "only there": ({"HF_TOKEN": SECRET, "HF_HOME": "/x"}, ".", True, []),
    "of one machine": ({"HF_TOKEN": SECRET, "PYTHON": "/other/python"}, ".", True, []),
    "another folder": ({"HF_TOKEN": SECRET}, "..", True, ["works in "]),
    "run_dir not shared": ({"HF_TOKEN": SECRET}, ".", False, ["does not see the run's folder"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_node_lacks_is_named_without_its_value(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, folder, shared, faults = CASES[case]
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for name in FORWARDED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("PYTHON", "/my/python")
    with probe_in(tmp_path / "run") as probe:
        question = NodeQuestion(FORWARDED, "salt", probe)
        here = surroundings(question)
        for name, value in variables.items():
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
        monkeypatch.chdir(folder)
        if not shared:
            Path(probe).write_text("of another disk")
        there = surroundings(question)
    found = differences(here, there, question)
    assert len(found) == len(faults)
    assert all(text.startswith(start) for text, start in zip(found, faults, strict=True))
    assert SECRET not in str((found, here, there))
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"run_dir=.*file/run: nothing can be written there"),
        probe_in(tmp_path / "file" / "run"),
    ):
        pass
