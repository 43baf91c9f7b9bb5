"""What a run writes and prints holds no secret: its recipe names the variable that does.

A recipe that holds a secret is refused (:func:`check_secrets`). Values that come from the environment, and variables
that the recipe gives to Ray, may be secret without looking like it: what we store, what verl prints and what a tracker
gets shows the reference in place of the value, and ``<hidden>`` in place of a variable for Ray.
"""

from __future__ import annotations

import copy
import json
import os
import pprint
import re
import shlex
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from wrapt import wrap_function_wrapper

from verl_air.errors import ConfigError
from verl_air.training.vllm_patches import RUN_VARIABLE

COMMAND_VARIABLE = "VERL_AIR_COMMAND"
"""The trainer runs in a Ray worker, whose own command line says nothing; the driver's comes in the environment."""
REFERENCES_VARIABLE = "VERL_AIR_REFERENCES"
"""The recipe's values that depend on the environment, as they were written: JSON of [path, text] pairs."""
PATH_VARIABLE = "VERL_FILE_LOGGER_PATH"
"""verl's own (``verl.utils.tracking.FileLogger``), for the trainer's process wherever it runs."""
HIDDEN = "<hidden>"

KeyPath = tuple[str | int, ...]

_WORDS = r"api_?key|access_?key|private_?key|secret|passw(?:or)?d|passphrase|credentials?"
_VARIABLE = re.compile(rf"(?:^|_)(?:{_WORDS}|token|key|pat)(?:_id)?$|(?:^|_)(?:{_WORDS})_", re.IGNORECASE)
_KEY = re.compile(
    rf"^(?:.*_)?(?:{_WORDS}|(?:auth|access|api|bearer|hf|hub|wandb)_?token)$|^(?:token|authorization|wandb_key)$",
    re.IGNORECASE,
)
_FROM_ENVIRONMENT = re.compile(r"oc\.env\s*:\s*['\"]?([A-Za-z_]\w*)")
_URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_NAME = re.compile(r"[A-Za-z_]\w*")
_ENV_VARS = ("ray_kwargs", "ray_init", "runtime_env", "env_vars")


def is_secret(variable: str) -> bool:
    """Whether an environment variable holds a secret, by its name."""
    return bool(_VARIABLE.search(variable))


def check_secrets(config: DictConfig) -> None:
    """A recipe holds names of variables, not what they hold.

    Raises:
        ConfigError: it holds, or takes from the environment, what looks like a secret. Does not print it.
    """
    for fault, _ in _faults(config):
        raise ConfigError(fault)


def _faults(config: DictConfig) -> Iterator[tuple[str, str]]:
    """(what is wrong, the text that must be hidden)."""
    held = {name: value for name, value in os.environ.items() if is_secret(name) and len(value) >= 8}
    for path, raw in _leaves(config):
        if not isinstance(raw, str) or not raw:
            continue
        key, name = ".".join(map(str, path)), str(path[-1])
        for variable in _FROM_ENVIRONMENT.findall(raw):
            if is_secret(variable) or _URL_WITH_PASSWORD.search(os.environ.get(variable, "")):
                yield f"{key} takes the value of the variable {variable} into the recipe, {_SPREADS}. {_SAFE}", raw
        if path[:-1] == _ENV_VARS:
            if is_secret(name):
                yield f"{key} holds a secret, which Ray writes to its logs. {_FORWARDED.format(name)}", raw
            if "${" in raw:
                yield f"{key}={raw}: verl gives Ray this text, not the value. {_FORWARDED.format(name)}", ""
        elif name.endswith("_env") and _KEY.search(name.removesuffix("_env")):
            if not _NAME.fullmatch(raw):
                yield f"{key} must be the name of an environment variable, not the secret itself", raw
        elif _KEY.search(name):
            yield f"{key} holds a secret, {_SPREADS}. {_SAFE}", raw
        for variable, value in held.items():
            if value in raw:
                yield f"{key} holds the value of the variable {variable}, {_SPREADS}. {_SAFE}", value
        if _URL_WITH_PASSWORD.search(raw):
            yield f"{key} is an address with a password in it, {_SPREADS}. {_SAFE}", raw


_SPREADS = "which verl prints, trackers store and Ray logs"
_SAFE = (
    "Write the name of a variable instead, as in reward_kwargs.judge.api_key_env, and set that variable where the run "
    "starts; trackers and hubs read their own (WANDB_API_KEY, HF_TOKEN)."
)
_FORWARDED = (
    "Remove it and set {} where the nodes start: `verl-air launch` and its scripts forward it (docs/cluster.md)."
)


def _leaves(config: DictConfig) -> Iterator[tuple[KeyPath, Any]]:
    """(path, value as written) of everything that is no container."""

    def walk(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
        if isinstance(node, dict | list):
            for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
                yield from walk(inner, (*path, key))
        else:
            yield path, node

    yield from walk(OmegaConf.to_container(config, resolve=False), ())


def _references(config: DictConfig) -> list[tuple[KeyPath, str]]:
    """The interpolations whose value changes with the environment, directly or through another key."""
    written = [(path, raw) for path, raw in _leaves(config) if isinstance(raw, str) and "${" in raw]
    variables = {name for _, raw in written for name in _FROM_ENVIRONMENT.findall(raw)}
    if not variables:
        return []

    def value(path: KeyPath) -> str | None:
        node: Any = config
        try:
            for key in path:
                node = node[key]
        except OmegaConfBaseException:
            return None
        return str(node)

    now = [value(path) for path, _ in written]
    environment = dict(os.environ)
    try:
        os.environ.update(dict.fromkeys(variables, uuid.uuid4().hex))
        changed = [value(path) for path, _ in written]
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update({name: environment[name] for name in variables & environment.keys()})
    return [item for item, old, new in zip(written, now, changed, strict=True) if old != new or new is None]


def hide(config: Any) -> Any:
    """A copy of a resolved config as plain containers, with references and ``<hidden>`` in place of values."""
    container = copy.deepcopy(config)
    for path, text in json.loads(os.environ.get(REFERENCES_VARIABLE) or "[]"):
        _put(container, path, text)
    variables = container
    for key in _ENV_VARS:
        variables = variables.get(key) if isinstance(variables, dict) else None
    if isinstance(variables, dict):
        variables.update(dict.fromkeys(variables, HIDDEN))
    return container


def _put(container: Any, path: list[Any], text: str) -> None:
    for key in path[:-1]:
        if not isinstance(container, dict | list) or (isinstance(container, dict) and key not in container):
            return  # the trainer dropped this section
        container = container[key]
    container[path[-1]] = text


def protect(config: DictConfig) -> None:
    """Called in the driver, before Ray starts its workers: hide what verl is about to print, and what Hydra has stored.

    Variables for Ray are taken out of the recipe and given to ``ray.init``, together with what the trainer needs for
    the run's record.
    """
    import ray

    section = OmegaConf.select(config, ".".join(_ENV_VARS))
    variables = {str(name): str(value) for name, value in (section or {}).items()}
    texts = list(variables.values())
    scrub_hydra(texts)
    for name in variables:
        section[name] = HIDDEN
    own = {
        COMMAND_VARIABLE: scrubbed(shlex.join([sys.executable, *sys.argv]), texts),
        REFERENCES_VARIABLE: json.dumps(_references(config)),
        RUN_VARIABLE: uuid.uuid4().hex[:12],
    }
    if path := os.environ.get(PATH_VARIABLE):
        own[PATH_VARIABLE] = os.path.abspath(path)
    start = ray.init

    def init(*args: Any, **kwargs: Any) -> Any:
        ray.init = start
        runtime_env = kwargs.get("runtime_env") or {}
        kwargs["runtime_env"] = {**runtime_env, "env_vars": {**(runtime_env.get("env_vars") or {}), **variables, **own}}
        return start(*args, **kwargs)

    ray.init = init


def scrub_refused(config: DictConfig) -> None:
    """Remove from Hydra's files what made us refuse a recipe: Hydra stores the overrides before we see them."""
    scrub_hydra([text for _, text in _faults(config) if "${" not in text])


def scrub_hydra(texts: list[str]) -> None:
    """Replace texts in the files that Hydra wrote for this run, if it runs under Hydra."""
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        for file in Path(hydra.runtime.output_dir, hydra.output_subdir or ".hydra").glob("*.yaml"):
            text = file.read_text()
            if (clean := scrubbed(text, texts)) != text:
                file.write_text(clean)


def scrubbed(text: str, secrets: list[str]) -> str:
    """A text without those values; ones of fewer than four characters stay, since they would match anywhere."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 4:
            text = text.replace(secret, HIDDEN)
    return text


def redact_verls_output() -> None:
    """Called in the trainer's process: verl's print of the config and what trackers get hold references."""
    if not json.loads(os.environ.get(REFERENCES_VARIABLE) or "[]"):
        return

    class Redacting(pprint.PrettyPrinter):
        def pprint(self, value: Any) -> None:
            super().pprint(hide(value) if isinstance(value, dict) and "actor_rollout_ref" in value else value)

    def tracked(wrapped: Callable[..., None], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("config") is not None:
            kwargs["config"] = hide(kwargs["config"])
        wrapped(*args, **kwargs)

    pprint.PrettyPrinter = Redacting  # type: ignore[misc]  # a class is replaced
    wrap_function_wrapper("verl.utils.tracking", "Tracking.__init__", tracked)
