"""The recipes of an installed package: built, unpacked and used with no file of the clone in sight."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

PACKAGES = ("verl_air", "reward_fns", "recipes")
MAIN_PPO = ("-m", "verl.trainer.main_ppo", "--cfg=job", "--config-name=mine", "--config-dir")
CHECK = """
import sys, yaml, reward_fns, verl, verl_air, verl_air.recipes
modules = [verl_air, verl_air.recipes, reward_fns, sys.modules["verl_air.plugin"]]  # verl has loaded the plugin
print(*(module.__file__ for module in modules), *filter(None, sys.path), sep="\\n", end="\\n---\\n")

from omegaconf import OmegaConf
from verl_air.cli import main
from verl_air.compose import read_recipe
from verl_air.config import AirConfig
from verl_air.rewards import ScoringPlan

config = read_recipe(sys.argv[1])
AirConfig.from_mapping(OmegaConf.to_container(config.air))
ScoringPlan(**OmegaConf.to_container(config.reward.custom_reward_function.reward_kwargs))
read_recipe("quickstart")
print(yaml.safe_dump(OmegaConf.to_container(config)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves a build folder, and would put what an earlier one holds into the wheel."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(out), str(source)], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, which sees this one's packages but not our editable install of them."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    with ZipFile(wheel) as archive:  # a pure wheel is installed by unpacking it
        archive.extractall(packages)
    borrowed = folder / "borrowed"
    borrowed.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("verl_air", "__editable__")) and entry.suffix != ".pth":
            (borrowed / entry.name).symlink_to(entry)
    (packages / "borrowed.pth").write_text(f"{borrowed}\n")
    return folder


def python(program: Path | str, folder: Path, *arguments: str) -> str:
    """Python's output, in a folder and without a search path of ours."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    command = [str(program), "-W", "ignore", *arguments]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        str(Path(package if package != "recipes" else "verl_air/recipes", file.relative_to(ROOT / package)))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.suffix in {".py", ".yaml", ".jinja"} or file.name == "py.typed"
    }
    assert found == files


def test_a_recipe_of_ones_own_composes_and_is_checked_from_an_empty_folder(
    installed: Path, mine: Path, tmp_path: Path
) -> None:
    run = partial(python, installed / "bin" / "python", tmp_path)
    places, _, composed = run("-c", CHECK, str(mine.relative_to(tmp_path))).partition("\n---\n")
    modules, path = places.splitlines()[:4], places.splitlines()[4:]
    assert all(Path(module).is_relative_to(installed) for module in modules), modules
    third_party = Path(sysconfig.get_path("purelib")).resolve()  # inside the clone, if its environment is
    outside = [entry for entry in path if not Path(entry).resolve().is_relative_to(third_party)]
    assert not [entry for entry in outside if Path(entry).resolve().is_relative_to(ROOT)]

    ours = yaml.safe_load(composed)
    verls = yaml.safe_load(run(*MAIN_PPO, str(mine.parent.relative_to(tmp_path))))
    assert ours == verls
    assert verls["trainer"]["experiment_name"] == "mine"
    assert verls["air"]["reward_scale"] == "unit"


def test_the_same_recipe_composes_in_this_environment(mine: Path, tmp_path: Path) -> None:
    """With the editable install, from another folder; and with the clone as working folder."""
    for place in (tmp_path, ROOT):
        composed = yaml.safe_load(python(sys.executable, place, *MAIN_PPO, str(mine.parent)))
        assert composed["trainer"]["n_gpus_per_node"] == 6
