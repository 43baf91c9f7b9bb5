"""``verl-air doctor`` on every node, and versions compared between nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_air.cluster.nodes import Node
from verl_air.errors import ConfigError

Report = Mapping[str, Any]


def check_nodes(nodes: Sequence[Node], arguments: Sequence[str], timeout: float, tell: Callable[[str], None]) -> None:
    """Run ``verl-air doctor ARGUMENTS`` on all nodes at once.

    Raises:
        ConfigError: a check failed somewhere, a node did not answer in time, or nodes differ in a version. Names the
            node and what failed.
    """
    reports = _run_everywhere(nodes, arguments, timeout)
    faults = [f"{node}: {fault}" for node, report in reports.items() for fault in faults_of(report)]
    if faults:
        raise ConfigError("`verl-air doctor` found on\n  " + "\n  ".join(faults))
    mismatches = differing_versions({node: report["versions"] for node, report in reports.items()})
    if mismatches:
        raise ConfigError(
            "nodes differ, and workers of different versions fail in ways that name no cause:\n  "
            + "\n  ".join(mismatches)
            + "\nInstall the same environment on every node."
        )
    tell(f"doctor: all well on {len(nodes)} node(s), versions equal")


def faults_of(report: Report) -> list[str]:
    """The failed checks of a doctor's report."""
    return [f"{check['name']}: {check['text']}" for check in report["checks"] if not check["ok"]]


def differing_versions(versions_of_node: Mapping[str, Mapping[str, str]]) -> list[str]:
    """One line for each package whose version is not the same on all nodes."""
    packages = sorted({package for versions in versions_of_node.values() for package in versions})
    lines = []
    for package in packages:
        found: dict[str, list[str]] = {}
        for node, versions in versions_of_node.items():
            found.setdefault(versions.get(package, "not installed"), []).append(node)
        if len(found) > 1:
            lines.append(f"{package}: " + "; ".join(f"{number} on {', '.join(on)}" for number, on in found.items()))
    return lines


def _run_everywhere(nodes: Sequence[Node], arguments: Sequence[str], timeout: float) -> dict[str, Report]:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def on(node: Node) -> Any:
        # With no GPU asked for, Ray would hide them from the task, and the doctor would miss them.
        task = ray.remote(_doctor).options(
            num_cpus=0,
            num_gpus=1 if node.gpus else 0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        )
        return task.remote(list(arguments), timeout)

    pending = [(node, on(node)) for node in nodes]
    reports: dict[str, Report] = {}
    for node, task in pending:
        try:
            reports[str(node)] = ray.get(task, timeout=timeout + 30)
        except GetTimeoutError:
            raise ConfigError(f"{node}: `verl-air doctor` gave no answer within {timeout:.0f} s") from None
        except RayError as error:
            raise ConfigError(f"{node}: `verl-air doctor` could not run: {error}") from error
    return reports


def _doctor(arguments: list[str], timeout: float) -> Report:
    """Runs on a node, in a process of its own: checks import what a Ray worker should not have imported."""
    command = [sys.executable, "-W", "ignore", "-m", "verl_air", "doctor", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"host"')]
    if not lines:
        end = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        return {"versions": {}, "checks": [{"name": "doctor", "ok": False, "text": end[0]}]}
    report: Report = json.loads(lines[-1])
    return report
