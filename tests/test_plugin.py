"""What ``import verl`` brings with it, and that it stays light."""

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_verl_loads_the_plugin_but_not_the_trainers() -> None:
    code = "import sys, verl; print('verl_air.plugin' in sys.modules, 'verl_air.training.trainer' in sys.modules)"
    assert run(code).endswith("True False")


def test_verls_lookup_finds_our_trainers() -> None:
    code = (
        "from verl.trainer.ppo.v1 import get_trainer_cls\n"
        "print([get_trainer_cls(n).__name__ for n in ('air_sync', 'air_colocate_async', 'air_separate_async')])"
    )
    assert run(code).endswith("['AirTrainerSync', 'AirTrainerColocateAsync', 'AirTrainerSeparateAsync']")


def test_without_the_plugin_an_air_recipe_cannot_run_silently() -> None:
    """verl's own answer to a trainer that nobody registered."""
    code = (
        "import os; os.environ['VERL_USE_EXTERNAL_PLUGINS'] = 'none'; os.environ['VERL_PLATFORM'] = ''\n"
        "from verl.trainer.ppo.v1 import get_trainer_cls\n"
        "try: get_trainer_cls('air_sync')\n"
        "except ValueError as error: print(error)"
    )
    assert "Unknown trainer 'air_sync'" in run(code)
