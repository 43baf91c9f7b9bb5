"""``verl-air doctor [RECIPE]``: will it run here? Says what is wrong and how to fix it; exit status 1 if a check fails.

Checks the machine, the installed versions, the plugin and the registered names; with a recipe also its settings, model,
data, rewards and judge, the memory that each GPU needs, and whether this machine or a Ray cluster has those GPUs. The
memory plan needs no GPU, so a laptop can show what would fit on a cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psutil
from omegaconf import OmegaConf

from verl_air.cli.installation import check_names, check_plugin, check_versions, found_versions
from verl_air.cli.terminal import of_other_packages
from verl_air.cluster.cpu_plan import machine_memory, measure_speed, plan_cpu
from verl_air.cluster.memory_plan import MemoryPlan, plan_memory
from verl_air.cluster.nodes import check_ports, connect, live_nodes, pools_of, shortfall
from verl_air.cluster.vllm_memory import GIB
from verl_air.compose import read_recipe
from verl_air.config import AirConfig
from verl_air.cpu.environment import is_chosen
from verl_air.errors import AirError, ConfigError
from verl_air.training import preflight
from verl_air.training.preflight.models import POLICY, read_model
from verl_air.training.preflight.style import check_response_style

GPU_GIB = 79.0  # an 80 GB card


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser("doctor", help="will it run here?", description=__doc__)
    add = parser.add_argument
    add("recipe", nargs="?", metavar="RECIPE", help="a YAML file, or a name in --config-dir")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides for the recipe")
    add("--config-dir", metavar="DIR", help="folder of recipes (default: ./recipes, then those installed)")
    add("--address", help="HOST:PORT of a Ray cluster's head, whose nodes are checked (default: RAY_ADDRESS)")
    add("--gpu-gib", type=float, metavar="N", help=f"memory per GPU (default: this machine's, {GPU_GIB:g} without one)")
    add(
        "--model-config",
        metavar="FILE",
        help="config.json of the model, if it is neither local, known here, nor on the hub",
    )
    add("--json", action="store_true", help="one line of JSON, with the versions of this machine")
    add("--on-node", action="store_true", help=argparse.SUPPRESS)  # `verl-air launch` has counted the GPUs
    parser.set_defaults(func=run)


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check."""

    name: str
    status: Literal["ok", "FAIL", "skip"]
    text: str


class _SkipError(Exception):
    """A check has nothing to check here; the message says why."""


def run(args: argparse.Namespace) -> int:
    """Run all checks; returns 1 if one failed.

    Raises:
        ConfigError: an option cannot be used.
    """
    if args.gpu_gib is not None and args.gpu_gib <= 0:
        raise ConfigError(f"--gpu-gib {args.gpu_gib:g}: must be above 0")
    doctor = Doctor(args)
    results: list[CheckResult] = []
    for name, check, needed in doctor.checks():
        unmet = [result.name for result in results if result.name in needed and result.status != "ok"]
        result = CheckResult(name, "skip", f"needs {unmet[0]} first") if unmet else _result(name, check)
        results.append(result)
        if not args.json:
            lines = [*result.text.splitlines(), *(doctor.plan.table() if name == "memory" and doctor.plan else ())]
            print(f"{result.status:<5} {name}: " + "\n      ".join(lines), flush=True)
    if args.json:
        report = {"host": socket.gethostname(), "versions": found_versions(), "checks": list(map(asdict, results))}
        if doctor.plan:
            report["memory_gib"] = {
                phase.name: {part.name: part.bytes / GIB for part in phase.parts} for phase in doctor.plan.phases
            }
        print(json.dumps(report))
    return int(any(result.status == "FAIL" for result in results))


def _result(name: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, "ok", check())
    except AirError as error:
        return CheckResult(name, "FAIL", str(error))
    except _SkipError as reason:
        return CheckResult(name, "skip", str(reason))


class Doctor:
    """The checks. Each returns what it found, or raises an ``AirError`` that says what is wrong and how to fix it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.on_cpu = is_chosen()
        self.gpus, self.gpu_bytes = 0, 0.0
        self.config = OmegaConf.create()
        self.air: AirConfig | None = None
        self.plan: MemoryPlan | None = None

    def checks(self) -> list[tuple[str, Callable[[], str], tuple[str, ...]]]:
        """Name, check, and the checks that must have passed before."""
        always: list[tuple[str, Callable[[], str], tuple[str, ...]]] = [
            ("machine", self.machine, ()),
            ("plugin", check_plugin, ()),  # before anything else of ours imports the plugin
            ("versions", check_versions, ()),
            ("names", check_names, ()),
        ]
        if not self.args.recipe:
            return always
        return [
            *always,
            ("recipe", self.recipe, ()),
            ("model", self.model, ("recipe",)),
            ("style", self.style, ("recipe", "model")),
            ("data", self.data, ("recipe",)),
            ("rewards", self.rewards, ("recipe", "data")),
            ("judge", self.judge, ("rewards",)),
            ("memory", self.memory, ("recipe",)),
            ("nodes", self.nodes, ("recipe",)),
        ]

    def machine(self) -> str:
        """What verl would train on."""
        cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / GIB
        rest = f"{cores} cores, {memory:.0f} GiB of memory"
        if self.on_cpu:
            return f"CPU (VERL_PLATFORM=cpu), {rest}"
        try:
            import torch
        except ImportError as error:
            raise ConfigError(f"torch cannot be imported ({error}): pip install torch") from error
        if not torch.cuda.is_available():
            raise ConfigError(
                f"this machine has no GPU that torch sees ({rest}). Set VERL_PLATFORM=cpu to train on the CPU, or fix "
                "the driver."
            )
        self.gpus, self.gpu_bytes = torch.cuda.device_count(), torch.cuda.get_device_properties(0).total_memory
        return f"{self.gpus} x {torch.cuda.get_device_name(0)} ({self.gpu_bytes / GIB:.1f} GiB per GPU), {rest}"

    def recipe(self) -> str:
        """The recipe composes and its settings fit each other."""
        self.config = read_recipe(self.args.recipe, self.args.overrides, config_dir=self.args.config_dir)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.air = preflight.check_settings(self.config)
            preflight.sizes.check_model_sizes(self.config, self.args.model_config)
        if self.air is None:
            return f"{self.args.recipe} composes; it has no `air:` key, so this is plain verl"
        changed = ", ".join(f"{key}={value}" for key, value in self.air.model_dump(exclude_defaults=True).items())
        notes = "".join(dict.fromkeys(f"\nwarning: {warning.message}" for warning in caught))
        return f"{self.args.recipe} composes, its settings fit; air: {changed or 'all defaults'}{notes}"

    def _options(self) -> AirConfig:
        if self.air is None:
            raise _SkipError("no `air:` key")
        return self.air

    def model(self) -> str:
        """Models exist, and fit their tokenizers and the recipe's lengths."""
        return "\n".join([str(self.config.actor_rollout_ref.model.path), *preflight.check_model(self.config)])

    def style(self) -> str:
        """The response style fits the model's chat template and its special tokens."""
        if self.air is None or str(self.config.reward.custom_reward_function.path) != preflight.inputs.OUR_REWARD:
            raise _SkipError("rows are not scored by verl-air")
        model = read_model(self.config, POLICY)
        if model is None:
            raise _SkipError("the model's tokenizer is not on this machine, and the hub cannot be reached")
        return check_response_style(self.config, model.tokenizer)

    def data(self) -> str:
        """Data files exist and hold whole meta-groups."""
        preflight.check_data(self.config, self._options())
        return "files are readable, meta-groups complete (`verl-air check FILE...` checks every row)"

    def rewards(self) -> str:
        """Every kind of row has a reward, and a judge that is asked exists."""
        preflight.check_rewards(self.config, self._options())
        function = self.config.reward.custom_reward_function
        if str(function.path) != preflight.inputs.OUR_REWARD:
            return f"rows are scored by {function.name} of {function.path}, which is not ours and was not called"
        return "\n".join(["every kind of row has a route", *preflight.check_judges_answer(self.config)])

    def judge(self) -> str:
        """The judge separates replies of known kind."""
        air = self._options()
        with of_other_packages():
            found = preflight.check_judges_separate(self.config, air)
        if found and "separates" not in found:
            raise _SkipError(f"{found}; `verl-air check --judge RECIPE --served base_url=URL` checks a served copy")
        return found or "no open rows that a judge scores"

    def memory(self) -> str:
        """The memory plan; without a GPU also the time of a step."""
        if self.config.trainer.device == "cpu" and self.args.gpu_gib is None:
            machine, available = machine_memory()
            plan = plan_cpu(self.config, machine, measure_speed(), available)
        else:
            gpu_bytes = self.args.gpu_gib * GIB if self.args.gpu_gib else self.gpu_bytes or GPU_GIB * GIB
            plan = plan_memory(self.config, gpu_bytes, self.args.model_config)
        self.plan = plan
        if plan.faults:
            raise ConfigError("\n".join(plan.faults))
        return plan.summary

    def nodes(self) -> str:
        """The GPUs that the recipe asks for are there."""
        device, pools = self.config.trainer.device, pools_of(self.config)
        for_cpu = device == "cpu"
        if for_cpu != self.on_cpu:
            here = (
                "runs with VERL_PLATFORM=cpu, as if it had no GPU" if self.on_cpu else "runs without VERL_PLATFORM=cpu"
            )
            raise ConfigError(f"the recipe trains on trainer.device={device} and this machine {here}")
        wanted = ", ".join(map(str, pools))
        address = self.args.address or os.environ.get("RAY_ADDRESS", "")
        if self.args.on_node:
            raise _SkipError("counted by `verl-air launch`")
        if address:
            with of_other_packages():
                connect(address, timeout=10)
            nodes = live_nodes()
            check_ports(nodes)
            gpus = {str(node): node.gpus for node in nodes}
        elif max(pool.nodes for pool in pools) > 1:
            raise _SkipError(f"the recipe asks for {wanted} GPU(s); --address HOST:PORT checks a Ray cluster")
        else:  # a CPU run declares simulated GPUs to Ray
            gpus = {"this machine": int(self.config.ray_kwargs.ray_init.num_gpus or 0) if for_cpu else self.gpus}
        found = ", ".join(f"{name}: {number} GPU(s)" for name, number in gpus.items())
        if missing := shortfall(pools, gpus):
            key = "ray_kwargs.ray_init.num_gpus" if for_cpu and not address else "trainer.n_gpus_per_node"
            raise ConfigError(f"{found}; that is only {missing} (the recipe asks for {wanted}; see {key})")
        return f"{found}; the recipe asks for {wanted}"
