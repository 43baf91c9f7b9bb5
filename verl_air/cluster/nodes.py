"""The nodes that Ray knows, and a bounded wait until they are enough."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from verl_air.cluster.needs import Pool, shortfall
from verl_air.errors import ConfigError


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is alive."""

    id: str
    host: str
    address: str
    gpus: int

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
    _wait_for_port(host, int(port), timeout)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the Ray head at {address} answers but does not accept us: {error}. Token and Ray version must be the "
            "same on every node (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH; docs/cluster.md)."
        ) from error


def _wait_for_port(host: str, port: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ConfigError(
                    f"no Ray head answers at {host}:{port} after {timeout:.0f} s ({error}). Is it started, is the "
                    "address the one that other nodes can reach, and does no firewall close the port?"
                ) from error
        time.sleep(1.0)


def alive_nodes() -> list[Node]:
    """The nodes that Ray takes for alive."""
    import ray

    resource = os.environ.get("VERL_AIR_RAY_RESOURCE", "GPU")
    return sorted(
        (
            Node(
                node["NodeID"],
                node["NodeManagerHostname"],
                node["NodeManagerAddress"],
                int(node["Resources"].get(resource, 0)),
            )
            for node in ray.nodes()
            if node["Alive"]
        ),
        key=lambda node: (node.host, node.id),
    )


def wait_for(pools: Sequence[Pool], timeout: float, tell: Callable[[str], None]) -> list[Node]:
    """Wait until the cluster can hold the pools; says how far it is whenever that changes.

    Raises:
        ConfigError: it cannot after ``timeout`` seconds.
    """
    deadline, told = time.monotonic() + timeout, ""
    while True:
        nodes = alive_nodes()
        lack = shortfall(pools, {node.id: node.gpus for node in nodes})
        have = f"{len(nodes)} node(s): {', '.join(map(str, nodes)) or 'none'}"
        if lack is None:
            tell(f"cluster complete: {have}")
            return nodes
        if time.monotonic() >= deadline:
            raise ConfigError(
                f"after {timeout:.0f} s the cluster has {have}, but only {lack} (the recipe asks for "
                f"{', '.join(map(str, pools))}). Start more nodes, or lower trainer.nnodes or trainer.n_gpus_per_node."
            )
        if have != told:
            tell(f"waiting for nodes and GPUs ({', '.join(map(str, pools))} wanted); so far {have}")
            told = have
        time.sleep(2.0)
