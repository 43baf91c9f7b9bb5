"""The nodes of a Ray cluster: the GPUs that a recipe asks for, a bounded wait for them, and checks on every node.

The checks are ``verl-air doctor`` on each node, Ray's ports, and versions, variables and folders compared.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_air.cluster.environment import NodeQuestion, Surroundings, differences, surroundings
from verl_air.errors import ConfigError


@dataclass(frozen=True)
class ResourcePool:
    """A resource pool of verl: ``nodes`` shares of ``gpus`` GPUs, each share on one node."""

    name: str
    nodes: int
    gpus: int

    def __str__(self) -> str:
        return f"{self.name} {self.nodes} x {self.gpus}"


def pools_of(config: DictConfig) -> tuple[ResourcePool, ...]:
    """The resource pools of a composed recipe, in the order in which verl places them.

    verl: ``PPOTrainer._init_resource_pool_mgr`` (trainer/ppo/v1/trainer_base.py) and, for a rollout pool of its own,
    ``actor_rollout_ref.rollout.nnodes``.
    """
    trainer, judge, rollout = config.trainer, config.reward.reward_model, config.actor_rollout_ref.rollout
    pools = [ResourcePool("trainer", int(trainer.nnodes), int(trainer.n_gpus_per_node))]
    if int(OmegaConf.select(rollout, "nnodes", default=0) or 0) > 0:
        pools.append(ResourcePool("rollout", int(rollout.nnodes), int(rollout.n_gpus_per_node)))
    if judge.enable and judge.enable_resource_pool:
        pools.append(ResourcePool("reward model", int(judge.nnodes), int(judge.n_gpus_per_node)))
    return tuple(pools)


def shortfall(pools: Sequence[ResourcePool], gpus_of_node: Mapping[str, int]) -> str | None:
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


def wait_for(pools: Sequence[ResourcePool], timeout: float, report: Callable[[str], None]) -> list[Node]:
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


def check_nodes(
    nodes: Sequence[Node],
    arguments: Sequence[str],
    question: NodeQuestion,
    timeout: float,
    report: Callable[[str], None],
) -> None:
    """Run ``verl-air doctor ARGUMENTS`` on all nodes at once, and compare their surroundings with those here.

    Raises:
        ConfigError: a check failed, a node did not answer in time or cannot be reached, or nodes differ in a version,
            a variable or a folder. Names the node and what failed.
    """
    check_ports(nodes)
    here = surroundings(question)
    diagnoses = _run_everywhere(nodes, arguments, question, timeout)
    faults = [
        f"{node}: {fault}"
        for node, (diagnosis, there) in diagnoses.items()
        for fault in [*failed_checks(diagnosis), *differences(here, there, question)]
    ]
    versions = {node: diagnosis["versions"] for node, (diagnosis, _) in diagnoses.items()}
    faults += differing_versions({node: found for node, found in versions.items() if found})
    if faults:
        raise ConfigError("`verl-air doctor` found on the nodes\n  " + "\n  ".join(faults))
    report(f"doctor: no fault on {len(nodes)} node(s); versions, variables and folders equal")


def failed_checks(diagnosis: Mapping[str, Any]) -> list[str]:
    """The failed checks in the JSON of ``verl-air doctor``."""
    return [f"{check['name']}: {check['text']}" for check in diagnosis["checks"] if check["status"] == "FAIL"]


def differing_versions(versions_of_node: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each package whose version is not the same on all nodes: workers then fail without naming a cause."""
    lines = []
    for package in sorted(set().union(*versions_of_node.values())):
        on: dict[str, list[str]] = {}
        for node, versions in versions_of_node.items():
            on.setdefault(versions.get(package, "not installed"), []).append(node)
        if len(on) > 1:
            places = "; ".join(f"{number} on {', '.join(nodes)}" for number, nodes in on.items())
            lines.append(f"{package}: {places}: install the same environment on every node")
    return lines


def _run_everywhere(
    nodes: Sequence[Node], arguments: Sequence[str], question: NodeQuestion, timeout: float
) -> dict[str, tuple[Mapping[str, Any], Surroundings]]:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def start(node: Node) -> Any:
        # Without a GPU asked for, Ray would hide them from the task, and the doctor would not see any.
        task = ray.remote(_doctor).options(
            num_cpus=0,
            num_gpus=1 if node.gpus else 0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        )
        return task.remote(list(arguments), question, timeout)

    diagnoses: dict[str, tuple[Mapping[str, Any], Surroundings]] = {}
    for node, task in [(node, start(node)) for node in nodes]:
        try:
            diagnoses[str(node)] = ray.get(task, timeout=timeout + 30)
        except GetTimeoutError:
            raise ConfigError(f"{node}: `verl-air doctor` gave no answer within {timeout:.0f} s") from None
        except RayError as error:
            raise ConfigError(f"{node}: `verl-air doctor` could not run: {error}") from error
    return diagnoses


def _doctor(arguments: list[str], question: NodeQuestion, timeout: float) -> tuple[Mapping[str, Any], Surroundings]:
    """Runs on a node; the checks in a process of their own: they import what a Ray worker should not have imported."""
    command = [sys.executable, "-W", "ignore", "-m", "verl_air", "doctor", "--json", "--on-node", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"host"')]
    end = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
    silent = {"versions": {}, "checks": [{"name": "doctor", "status": "FAIL", "text": end[0]}]}
    return json.loads(lines[-1]) if lines else silent, surroundings(question)
