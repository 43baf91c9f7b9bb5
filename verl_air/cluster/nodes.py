"""The GPUs that a recipe asks for, the nodes that Ray has, and a bounded wait until they are enough."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from verl_air.errors import ConfigError


@dataclass(frozen=True)
class Pool:
    """A resource pool of verl: ``nodes`` shares of ``gpus`` GPUs, each share on one node."""

    name: str
    nodes: int
    gpus: int

    def __str__(self) -> str:
        return f"{self.name} {self.nodes} x {self.gpus}"


def pools_of(config: DictConfig) -> tuple[Pool, ...]:
    """The resource pools of a composed recipe, in the order in which verl places them.

    verl: ``PPOTrainer._init_resource_pool_mgr`` (trainer/ppo/v1/trainer_base.py) and, for a rollout pool of its own,
    ``actor_rollout_ref.rollout.nnodes``.
    """
    trainer, judge, rollout = config.trainer, config.reward.reward_model, config.actor_rollout_ref.rollout
    pools = [Pool("trainer", int(trainer.nnodes), int(trainer.n_gpus_per_node))]
    if int(OmegaConf.select(rollout, "nnodes", default=0) or 0) > 0:
        pools.append(Pool("rollout", int(rollout.nnodes), int(rollout.n_gpus_per_node)))
    if judge.enable and judge.enable_resource_pool:
        pools.append(Pool("reward model", int(judge.nnodes), int(judge.n_gpus_per_node)))
    return tuple(pools)


def shortfall(pools: Sequence[Pool], gpus_of_node: Mapping[str, int]) -> str | None:
    """What the nodes lack, or None if every share of every pool finds a node.

    Shares are placed one after another on the node with the fewest GPUs that suffice, which is what Ray does with
    placement groups of one node each.
    """
    free = dict(gpus_of_node)
    for pool in pools:
        for share in range(pool.nodes):
            fitting = [name for name, gpus in free.items() if gpus >= pool.gpus]
            if not fitting:
                return (
                    f"{share} of the {pool.nodes} node(s) with {pool.gpus} free GPU(s) that the {pool.name} pool needs"
                )
            free[min(fitting, key=lambda name: (free[name], name))] -= pool.gpus
    return None


@dataclass(frozen=True)
class Node:
    """A live node of the cluster. ``ports``: those of its node manager and its object manager."""

    id: str
    host: str
    address: str
    gpus: int
    ports: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.host} ({self.address}, {self.gpus} GPU, id {self.id[:6]})"


def connect(address: str, timeout: float) -> None:
    """Connect this process to the cluster whose head listens at ``address`` (``host:port``).

    Raises:
        ConfigError: nothing answers there within ``timeout`` seconds, or it refuses us.
    """
    import ray

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--address {address}: write HOST:PORT, as `ray start --head` prints it")
    deadline = time.monotonic() + timeout
    while error := _connection_error(host, int(port)):
        if time.monotonic() >= deadline:
            raise ConfigError(
                f"no Ray head answers at {address} after {timeout:.0f} s ({error}). Is it started, is the address one "
                "that other nodes can reach, and is the port open in the firewall?"
            ) from error
        time.sleep(1.0)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as refusal:
        raise ConfigError(
            f"the Ray head at {address} answers but does not accept us: {refusal}. Token and Ray version must be the "
            "same on every node (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH; docs/cluster.md)."
        ) from refusal


def _connection_error(host: str, port: int) -> OSError | None:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return error
    return None


def live_nodes() -> list[Node]:
    """The nodes that Ray considers alive."""
    import ray

    resource = os.environ.get("VERL_AIR_RAY_RESOURCE", "GPU")
    nodes = [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            node["NodeManagerAddress"],
            int(node["Resources"].get(resource, 0)),
            (int(node["NodeManagerPort"]), int(node["ObjectManagerPort"])),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node.host, node.id))


def check_ports(nodes: Sequence[Node]) -> None:
    """Connect to the Ray ports of every node, from this machine.

    Raises:
        ConfigError: one is closed.
    """
    for node in nodes:
        for port in node.ports:
            if error := _connection_error(node.address, port):
                raise ConfigError(
                    f"{node}: Ray's port {port} cannot be reached from {socket.gethostname()} ({error}). Open the "
                    "ports between the nodes (docs/cluster.md)."
                )


def wait_for(pools: Sequence[Pool], timeout: float, report: Callable[[str], None]) -> list[Node]:
    """Wait until the cluster can hold the pools; reports its state whenever that changes.

    Raises:
        ConfigError: it cannot after ``timeout`` seconds.
    """
    deadline, reported, wanted = time.monotonic() + timeout, "", ", ".join(map(str, pools))
    while True:
        nodes = live_nodes()
        missing = shortfall(pools, {node.id: node.gpus for node in nodes})
        have = f"{len(nodes)} node(s): {', '.join(map(str, nodes)) or 'none'}"
        if missing is None:
            report(f"cluster complete: {have}")
            return nodes
        if time.monotonic() >= deadline:
            raise ConfigError(
                f"after {timeout:.0f} s the cluster has {have}, but only {missing} (the recipe asks for {wanted}). "
                "Start more nodes, or lower trainer.nnodes or trainer.n_gpus_per_node."
            )
        if have != reported:
            report(f"waiting for nodes and GPUs ({wanted}); so far {have}")
            reported = have
        time.sleep(2.0)
