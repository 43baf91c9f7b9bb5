"""Somebody else's package, really installed, registers through its own entry point."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

PACKAGE = ROOT / "tests" / "plugins"

USE = """
import asyncio
from verl_air.objective import get_regularizer, regularizer_names
from verl_air.rewards import ScoringPlan, compute_score, reward_names, self_check

routes = {"*/*": {"name": "acme_brevity", "limit": 5}}
ScoringPlan(routes)
response = "<think>a</think><answer>short</answer>"
result = asyncio.run(compute_score("lab/id", response, "", {"role": "anchor"}, routes=routes))
assert result["task_reward"] == 1.0 and result["score"] == 2.25, result
assert self_check("acme_brevity", "") is None
assert get_regularizer("acme_push").__module__ == "acme_air", regularizer_names()
print("acme_brevity" in reward_names())
"""


def run(code: str, plugin: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{plugin}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", folder / "target", folder / "source"], check=True, capture_output=True)
    return folder / "target"


def test_an_installed_plugin_registers_a_reward_and_a_regularizer(installed: Path) -> None:
    done = run(USE, installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"


def test_a_plugin_that_fails_is_told_and_not_passed_over(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(installed, tmp_path / "broken")
    (tmp_path / "broken" / "acme_air" / "__init__.py").write_text("raise RuntimeError('acme is broken')\n")
    done = run("from verl_air.rewards import reward_names; reward_names()", tmp_path / "broken")
    assert done.returncode != 0
    assert "acme is broken" in done.stderr
