"""``verl-air doctor`` on every node, and versions compared between nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_air.cluster.nodes import Node, check_ports
from verl_air.errors import ConfigError


def check_nodes(nodes: Sequence[Node], arguments: Sequence[str], timeout: float, report: Callable[[str], None]) -> None:
    """Run ``verl-air doctor ARGUMENTS`` on all nodes at once.

    Raises:
        ConfigError: a check failed, a node did not answer in time or cannot be reached, or nodes differ in a version.
            Names the node and what failed.
    """
    check_ports(nodes)
    diagnoses = _run_everywhere(nodes, arguments, timeout)
    faults = [f"{node}: {fault}" for node, diagnosis in diagnoses.items() for fault in failed_checks(diagnosis)]
    if faults:
        raise ConfigError("`verl-air doctor` found on\n  " + "\n  ".join(faults))
    mismatches = differing_versions({node: diagnosis["versions"] for node, diagnosis in diagnoses.items()})
    if mismatches:
        raise ConfigError(
            "nodes differ, and workers of different versions fail in ways that name no cause:\n  "
            + "\n  ".join(mismatches)
            + "\nInstall the same environment on every node."
        )
    report(f"doctor: no fault on {len(nodes)} node(s), versions equal")


def failed_checks(diagnosis: Mapping[str, Any]) -> list[str]:
    """The failed checks in the JSON of ``verl-air doctor``."""
    return [f"{check['name']}: {check['text']}" for check in diagnosis["checks"] if check["status"] == "FAIL"]


def differing_versions(versions_of_node: Mapping[str, Mapping[str, str]]) -> list[str]:
    """One line for each package whose version is not the same on all nodes."""
    lines = []
    for package in sorted({package for versions in versions_of_node.values() for package in versions}):
        found: dict[str, list[str]] = {}
        for node, versions in versions_of_node.items():
            found.setdefault(versions.get(package, "not installed"), []).append(node)
        if len(found) > 1:
            lines.append(f"{package}: " + "; ".join(f"{number} on {', '.join(on)}" for number, on in found.items()))
    return lines


def _run_everywhere(nodes: Sequence[Node], arguments: Sequence[str], timeout: float) -> dict[str, Mapping[str, Any]]:
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
        return task.remote(list(arguments), timeout)

    diagnoses: dict[str, Mapping[str, Any]] = {}
    for node, task in [(node, start(node)) for node in nodes]:
        try:
            diagnoses[str(node)] = ray.get(task, timeout=timeout + 30)
        except GetTimeoutError:
            raise ConfigError(f"{node}: `verl-air doctor` gave no answer within {timeout:.0f} s") from None
        except RayError as error:
            raise ConfigError(f"{node}: `verl-air doctor` could not run: {error}") from error
    return diagnoses


def _doctor(arguments: list[str], timeout: float) -> Mapping[str, Any]:
    """Runs on a node, in a process of its own: the checks import what a Ray worker should not have imported."""
    command = [sys.executable, "-W", "ignore", "-m", "verl_air", "doctor", "--json", "--on-node", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"host"')]
    if not lines:
        end = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        return {"versions": {}, "checks": [{"name": "doctor", "status": "FAIL", "text": end[0]}]}
    diagnosis: Mapping[str, Any] = json.loads(lines[-1])
    return diagnosis
