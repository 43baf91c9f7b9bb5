"""``verl-air launch RECIPE``: run a recipe on a Ray cluster that is up or coming up.

Before the training starts: the recipe's settings are checked and its relative folders resolved; the cluster is waited
for until it has the nodes and GPUs that the recipe asks for; ``verl-air doctor`` runs on every node, where variables
and folders must be as they are here. While it runs, the nodes are watched. Exit status: that of the training; 2 for a
fault that is reported before it starts; 75 when a node was lost; 128 + N when ended by signal N.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_air.cli.terminal import of_other_packages
from verl_air.cluster.environment import NodeQuestion, probe_in, variables_of
from verl_air.cluster.nodes import check_nodes, connect, live_nodes, pools_of, wait_for
from verl_air.cluster.supervise import NODE_LOST, supervise
from verl_air.compose import hydra_arguments, read_recipe, resolve_folders
from verl_air.errors import ConfigError
from verl_air.training import preflight
from verl_air.training.run_folder import run_folder

DOCTOR_TIMEOUT_S = 300.0


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser("launch", help="run a recipe on a Ray cluster", description=__doc__)
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="a YAML file, or a name in --config-dir")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides for the recipe")
    add("--config-dir", metavar="DIR", help="folder of recipes (default: ./recipes, then those installed)")
    add("--address", help="HOST:PORT of the cluster's head (default: RAY_ADDRESS)")
    add("--timeout", type=float, default=600.0, metavar="S", help="how long to wait for head and nodes (default: 600)")
    add("--no-doctor", action="store_true", help="leave out the check of every node")
    add("--dry-run", action="store_true", help="check the recipe, print what would run, and stop")
    add("--variables", action="store_true", help="check the recipe, print the variables that nodes need, and stop")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check, wait, train; see the module.

    Raises:
        ConfigError: the recipe or the cluster cannot work.
    """
    config = read_recipe(args.recipe, args.overrides, config_dir=args.config_dir)
    preflight.check_settings(config)
    preflight.sizes.check_model_sizes(config)
    _check_ray_init(config)
    if args.variables:
        print(*(name for name in variables_of(config) if os.environ.get(name)), sep="\n")
        return 0
    found = hydra_arguments(args.recipe, config_dir=args.config_dir)
    folders = [f"{key}={_quoted(folder)}" for key, folder in resolve_folders(config).items()]
    overrides = [*args.overrides, *folders]
    command = [sys.executable, "-u", "-W", "ignore", "-m", "verl.trainer.main_ppo", *found, *overrides]
    address = args.address or os.environ.get("RAY_ADDRESS", "")
    if args.dry_run:
        _report(
            f"would wait for {', '.join(map(str, pools_of(config)))} GPU(s) at {address or 'RAY_ADDRESS'}, then run"
        )
        print(shlex.join(command))
        return 0
    _, folder, _, name = found
    return _train(args, address, config, command, [str(Path(folder, f"{name}.yaml")), *overrides])


def _quoted(text: str) -> str:
    """A path as Hydra's grammar of overrides reads it."""
    return text if re.fullmatch(r"[\w./-]+", text) else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _train(
    args: argparse.Namespace, address: str, config: DictConfig, command: list[str], doctor_arguments: list[str]
) -> int:
    if not address:
        raise ConfigError("no address: give --address HOST:PORT or set RAY_ADDRESS")
    with of_other_packages():
        connect(address, args.timeout)
    nodes = wait_for(pools_of(config), args.timeout, _report)
    if not args.no_doctor:
        with probe_in(run_folder(config)) as probe:
            question = NodeQuestion(variables_of(config), os.urandom(16).hex(), probe)
            check_nodes(nodes, doctor_arguments, question, DOCTOR_TIMEOUT_S, _report)

    def lost() -> list[str]:
        alive = {node.id for node in live_nodes()}
        return [str(node) for node in nodes if node.id not in alive]

    _report(shlex.join(command))
    status = supervise(command, environment={**os.environ, "RAY_ADDRESS": address}, lost=lost, report=_report)
    if status == NODE_LOST:
        _report("the same command resumes from the last checkpoint if the recipe has trainer.resume_mode=auto")
    _report(f"exit status {status}")
    return status


def _check_ray_init(config: DictConfig) -> None:
    """``ray.init`` refuses to size a cluster that it only joins (ray/_private/worker.py)."""
    for key in ("num_cpus", "num_gpus", "object_store_memory", "resources"):
        if config.ray_kwargs.ray_init.get(key, None) is not None:
            raise ConfigError(
                f"ray_kwargs.ray_init.{key}={config.ray_kwargs.ray_init[key]}: the nodes of a running cluster say what "
                f"they have. Add the override ray_kwargs.ray_init.{key}=null."
            )


def _report(message: str) -> None:
    print(f"verl-air launch: {message}", flush=True)
