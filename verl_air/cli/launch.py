"""``verl-air launch``: run a recipe on a Ray cluster that is up or coming up.

Before the training starts: the recipe is checked, the cluster is waited for until it has the nodes and GPUs that the
recipe asks for, and ``verl-air doctor`` runs on every node. While it runs, the nodes are watched. Exit status: that of
the training; 2 for a fault that is told before it starts; 75 when a node was lost; 128 + N when ended by signal N.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any

from verl_air.compose import compose_recipe
from verl_air.errors import ConfigError


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser("launch", help="run a recipe on a Ray cluster", description=__doc__)
    add = parser.add_argument
    add("--address", help="HOST:PORT of the cluster's head (default: RAY_ADDRESS)")
    add("--config-dir", default="recipes", help="folder of the recipe (default: recipes)")
    add("--config-name", required=True, help="the recipe")
    add("--timeout", type=float, default=600.0, metavar="S", help="how long to wait for head and nodes (default: 600)")
    add("--doctor-timeout", type=float, default=300.0, metavar="S", help="how long a node's doctor may take")
    add("--no-doctor", action="store_true", help="leave out the check of every node")
    add("--dry-run", action="store_true", help="check the recipe, print what would run, and stop")
    add("overrides", nargs="*", help="Hydra overrides for the recipe")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check, wait, train; see the module.

    Raises:
        ConfigError: the recipe or the cluster cannot work.
    """
    from verl_air.cluster.needs import pools_of
    from verl_air.planning import check_recipe_sizes

    recipe = ["--config-dir", os.path.abspath(args.config_dir), "--config-name", args.config_name]
    command = [sys.executable, "-u", "-W", "ignore", "-m", "verl.trainer.main_ppo", *recipe, *args.overrides]
    config = compose_recipe(args.config_dir, args.config_name, args.overrides)
    check_recipe_sizes(config)
    _check_ray_init(config)
    pools = pools_of(config)
    address = args.address or os.environ.get("RAY_ADDRESS", "")
    if args.dry_run:
        _tell(f"would wait for {', '.join(map(str, pools))} GPU(s) at {address or 'RAY_ADDRESS'}, then run")
        print(shlex.join(command))
        return 0
    return _train(args, address, pools, command, [*recipe, *args.overrides])


def _train(args: argparse.Namespace, address: str, pools: Any, command: list[str], recipe: list[str]) -> int:
    from verl_air.cluster.nodes import alive_nodes, connect, wait_for
    from verl_air.cluster.preflight import check_nodes
    from verl_air.cluster.supervise import NODE_LOST, supervise

    if not address:
        raise ConfigError("no address: give --address HOST:PORT or set RAY_ADDRESS")
    connect(address, args.timeout)
    nodes = wait_for(pools, args.timeout, _tell)
    if not args.no_doctor:
        check_nodes(nodes, recipe, args.doctor_timeout, _tell)

    def lost() -> list[str]:
        alive = {node.id for node in alive_nodes()}
        return [str(node) for node in nodes if node.id not in alive]

    _tell(shlex.join(command))
    status = supervise(command, environment={**os.environ, "RAY_ADDRESS": address}, lost=lost, tell=_tell)
    if status == NODE_LOST:
        _tell("the same command resumes from the last checkpoint if the recipe has trainer.resume_mode=auto")
    _tell(f"exit status {status}")
    return status


def _check_ray_init(config: Any) -> None:
    """``ray.init`` refuses to size a cluster that it only joins (ray/_private/worker.py)."""
    for key in ("num_cpus", "num_gpus", "object_store_memory", "resources"):
        if config.ray_kwargs.ray_init.get(key, None) is not None:
            raise ConfigError(
                f"ray_kwargs.ray_init.{key}={config.ray_kwargs.ray_init[key]}: the nodes of a running cluster say what "
                f"they have. Add the override ray_kwargs.ray_init.{key}=null."
            )


def _tell(message: str) -> None:
    print(f"verl-air launch: {message}", flush=True)
