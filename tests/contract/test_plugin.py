"""``verl_air/plugin.py``: how verl finds us, and the modules behind whose import we register things."""

from __future__ import annotations

from importlib.metadata import entry_points, version

from wrapt import FunctionWrapper

from tests.contract.expect import holds, takes
from verl_air.plugin import VERL_VERSION


def test_the_version_that_these_tests_describe_is_installed() -> None:
    assert version("verl") == VERL_VERSION, "read verl's changes, fix what tests/contract reports, then move the pin"


def test_our_entry_point_is_in_the_group_that_verl_loads() -> None:
    found = {point.name: point.value for point in entry_points(group="verl.plugins")}
    assert found.get("verl_air") == "verl_air.plugin", f"the installed verl-air names {found}: pip install -e . again"


def test_register_trainer() -> None:
    from verl.trainer.ppo.v1.trainer_base import get_trainer_cls

    from verl_air.training.trainer import TRAINERS

    for mode, cls in TRAINERS.items():
        assert get_trainer_cls(f"air_{mode}") is cls
        stock = get_trainer_cls(mode)
        holds(issubclass(cls, stock), f"{mode!r} names the trainer we extend", used_by="training/trainer.py")


def test_recipes_are_checked_before_anything_starts() -> None:
    """main_ppo calls validate_config first, and took it from verl.utils.config, so it holds our wrapped one."""
    from verl.trainer import main_ppo
    from verl.utils.config import validate_config

    used_by = "verl_air/training/preflight (check_recipes_first)"
    assert isinstance(validate_config, FunctionWrapper), "our check is not in front of verl's validate_config"
    assert isinstance(main_ppo.validate_config, FunctionWrapper), "main_ppo holds an unwrapped validate_config"
    takes(validate_config.__wrapped__, "config", "use_reference_policy", "use_critic", used_by=used_by)


def test_process_groups_are_made_by_the_function_that_we_wrap() -> None:
    from verl.utils import distributed
    from verl.workers import engine_workers

    wrapped = distributed.initialize_global_process_group_ray
    used_by = "verl_air/cpu/platform.py (use_single_backend)"
    assert isinstance(wrapped, FunctionWrapper)
    takes(wrapped.__wrapped__, "timeout_second", "backend", used_by=used_by)
    holds(
        isinstance(engine_workers.initialize_global_process_group_ray, FunctionWrapper),
        "TrainingWorker takes initialize_global_process_group_ray from verl.utils.distributed",
        used_by=used_by,
    )
