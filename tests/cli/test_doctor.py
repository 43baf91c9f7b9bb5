from pathlib import Path

import pytest

from tests.conftest import RECIPES
from verl_air.cli import main


def test_a_sound_environment_and_recipe_pass(playground_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["doctor", "--config-dir", str(RECIPES), "--config-name", "quickstart", f"playground={playground_files}"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    for check in ("versions: verl 0.9.1", "plugin: loaded", "device: CPU", "rewards: ", "recipe quickstart: can run"):
        assert f"ok    {check}" in out


def test_each_fault_is_told_and_the_status_is_1(playground_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["doctor", "--config-dir", str(RECIPES), "--config-name", "quickstart", f"playground={playground_files}"]
    assert main([*command, "data.train_batch_size=30"]) == 1
    assert "FAIL  recipe quickstart: data.train_batch_size=30 cannot hold" in capsys.readouterr().out
    assert main(["doctor", "--config-dir", str(RECIPES), "--config-name", "quickstarts"]) == 1
    assert "quickstarts.yaml does not compose" in capsys.readouterr().out


def test_the_plugin_policy_of_verl_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "verl_air.plugin", raising=False)
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    monkeypatch.setattr("verl_air.cli.doctor.check_versions", lambda: "left out: it imports the plugin")
    assert main(["doctor"]) == 1
    assert "did not load verl_air.plugin (VERL_USE_EXTERNAL_PLUGINS=none)" in capsys.readouterr().out
