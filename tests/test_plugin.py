"""What ``import verl`` brings with it, that it stays light, and that it is silent where it is not asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from verl_air.plugin import SUPPORTED_VERL

pytestmark = pytest.mark.slow  # each process imports verl


def run(code: str, *paths: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), os.getcwd()]), **environment}
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def output(code: str, **environment: str) -> list[str]:
    done = run(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


OURS = "sorted(name for name in sys.modules if name.startswith(('verl_air.training.', 'verl_air.config')))"


def test_a_plain_recipe_imports_nothing_of_ours_but_the_plugin_and_verls_lookup_finds_our_trainers() -> None:
    """Importing verl, checking a plain recipe and finding its trainer, with the weight transfer of vLLM; then ours."""
    code = f"""
import sys, verl
import verl.workers.rollout.vllm_rollout.bucketed_weight_transfer
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils.config import validate_config
try: validate_config(dict(trainer=dict(v1=dict(trainer_mode='sync'))), False, False)
except AttributeError: pass  # verl wants a whole config
print(get_trainer_cls('sync').__name__, {OURS})
print([get_trainer_cls(name).__name__ for name in ('air_sync', 'air_colocate_async', 'air_separate_async')])
"""
    plain, ours = output(code)[-2:]
    assert ours == "['AirTrainerSync', 'AirTrainerColocateAsync', 'AirTrainerSeparateAsync']"
    assert plain == "PPOTrainerSync ['verl_air.training.vllm_patches']"


def test_without_the_plugin_an_air_recipe_cannot_run_silently() -> None:
    """verl's own answer to a trainer that nobody registered."""
    code = (
        "from verl.trainer.ppo.v1 import get_trainer_cls\n"
        "try: get_trainer_cls('air_sync')\n"
        "except ValueError as error: print(error)"
    )
    assert "Unknown trainer 'air_sync'" in output(code, VERL_USE_EXTERNAL_PLUGINS="none", VERL_PLATFORM="")[-1]


VALIDATE = """
from omegaconf import OmegaConf
from verl.utils.config import validate_config
for recipe in {recipes}:
    try: validate_config(OmegaConf.create(recipe), False, False)
    except SystemExit as end: print("ended with", end.code)
    except Exception: print("passed on to verl")  # which wants a whole config
"""


def test_with_another_version_a_plain_recipe_runs_in_silence_and_one_of_ours_is_refused(tmp_path: Path) -> None:
    """A folder on the path says that another version of verl is installed."""
    info = tmp_path / "verl-0.10.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: verl\nVersion: 0.10.0\n")
    modes = [{"trainer": {"v1": {"trainer_mode": mode}}} for mode in ("sync", "air_sync")]
    plain, air, trainer_of_ours = modes[0], {"air": {}, **modes[0]}, modes[1]
    done = run(VALIDATE.format(recipes=[plain, air, trainer_of_ours]), tmp_path, VERL_PLATFORM="")
    assert done.stdout.splitlines()[-3:] == ["passed on to verl", "ended with 2", "ended with 2"], done.stderr
    refusal = (
        "verl-air: verl 0.10.0 is installed, and a recipe with an `air:` key needs "
        f"{' or '.join(SUPPORTED_VERL)}: pip install verl=={SUPPORTED_VERL[0]}"
    )
    assert [line for line in (done.stdout + done.stderr).splitlines() if "air" in line] == [refusal, refusal]


def test_a_plugin_that_cannot_be_loaded_says_so_in_one_line_and_once(tmp_path: Path) -> None:
    (tmp_path / "wrapt.py").write_text("raise ImportError('no wrapt here')\n")
    code = "import subprocess, sys, verl\nif sys.argv[1:] == []: subprocess.run([sys.executable, '-c', 'import verl'])"
    done = run(code, tmp_path, VERL_PLATFORM="")
    lines = [line for line in done.stderr.splitlines() if "verl-air" in line]
    assert lines == ["verl-air: the plugin could not be loaded: ImportError: no wrapt here"]
    assert "Traceback" not in done.stderr
