"""What the nodes of a run must share besides packages: variables, the working folder and the run's folder.

Ray's workers have the environment and the working folder of the node that started them, not those of the driver. The
launch scripts forward both; :func:`surroundings` looks on a node, and :func:`differences` compares.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from verl_air.errors import ConfigError

OF_ONE_MACHINE = ("PYTHON", "CUDA_VISIBLE_DEVICES")
"""Forwarded, but a machine may have a value of its own."""
FORWARDED = (
    *OF_ONE_MACHINE,
    *("VERL_PLATFORM", "VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT", "NCCL_IB_HCA", "NCCL_DEBUG"),
    *("HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    *("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_MODE", "WANDB_DIR", "SWANLAB_API_KEY"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "TENSORBOARD_DIR", "HTTPS_PROXY", "NO_PROXY"),
)
"""Variables of verl, vLLM, hubs, trackers and object stores that a run may need on every node."""


def variables_of(config: DictConfig) -> tuple[str, ...]:
    """The variables that a recipe needs on every node: ours, and those that hold its judges' keys."""
    kwargs = OmegaConf.select(config, "reward.custom_reward_function.reward_kwargs") or {}
    judges = (kwargs.get("judge"), *(kwargs.get("judges") or {}).values())
    keys = [judge.get("api_key_env") for judge in judges if judge]
    return tuple(dict.fromkeys([*FORWARDED, *(str(key) for key in keys if key)]))


class NodeQuestion(NamedTuple):
    """What a node is asked. ``salt`` makes digests of secrets useless elsewhere; ``probe`` is a file of the head's."""

    variables: tuple[str, ...]
    salt: str
    probe: str


class Surroundings(NamedTuple):
    """What a process finds around it: the digest of each variable that is set, its folder, and what the probe holds."""

    variables: Mapping[str, str]
    folder: str
    probe: str | None


def surroundings(question: NodeQuestion) -> Surroundings:
    """Look, on a node or where the training is started."""
    digests = {
        name: hashlib.sha256((question.salt + os.environ[name]).encode()).hexdigest()
        for name in question.variables
        if os.environ.get(name)
    }
    probe = Path(question.probe)
    return Surroundings(digests, os.getcwd(), probe.read_text() if probe.is_file() else None)


@contextmanager
def probe_in(folder: str | os.PathLike[str]) -> Iterator[str]:
    """A file in the run's folder for as long as the nodes are asked; yields its path.

    Raises:
        ConfigError: nothing can be written there.
    """
    probe = Path(folder, f".seen-from-every-node-{os.getpid()}")
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text(f"{socket.gethostname()} {os.getpid()}")
    except OSError as error:
        raise ConfigError(f"run_dir={folder}: nothing can be written there ({error})") from error
    try:
        yield str(probe)
    finally:
        probe.unlink(missing_ok=True)


def differences(here: Surroundings, there: Surroundings, question: NodeQuestion) -> list[str]:
    """What is not the same on a node, with what to do; holds no value of a variable."""
    faults = []
    for name in question.variables:
        mine, theirs = here.variables.get(name), there.variables.get(name)
        if mine is None or mine == theirs or name in OF_ONE_MACHINE:
            continue
        state = "is not set there" if theirs is None else "has another value there"
        faults.append(f"the variable {name} {state}: set it where the node's Ray starts (docs/cluster.md)")
    if there.folder != here.folder:
        faults.append(
            f"works in {there.folder}, and the training starts in {here.folder}: start the node's Ray in that folder "
            "(node.sh --directory), or relative paths lead elsewhere"
        )
    if there.probe != here.probe:
        folder = Path(question.probe).parent
        faults.append(
            f"does not see the run's folder {folder} as the head does: what its processes write there would be lost. "
            "Choose a run_dir that all nodes share."
        )
    return faults
