"""Secrets do not get into a recipe, and what is stored and printed holds no value from the environment."""

from __future__ import annotations

import json
import pprint
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.conftest import ROOT
from verl_air.errors import ConfigError
from verl_air.training import redaction
from verl_air.training.preflight import check_settings

Compose = Callable[..., DictConfig]
CANARY = "canary-4f9b27"
KWARGS = "reward.custom_reward_function.reward_kwargs"
ENV_VARS = "ray_kwargs.ray_init.runtime_env.env_vars"

REFUSED = {
    "value of a variable": (
        f"{KWARGS}.judge.model=${{oc.env:MY_API_KEY}}",
        "takes the value of the variable MY_API_KEY",
    ),
    "with a default": ("trainer.project_name=${oc.env:HF_TOKEN,none}", "takes the value of the variable HF_TOKEN"),
    "decoded": ("trainer.project_name=${oc.decode:${oc.env:HF_TOKEN}}", "takes the value of the variable HF_TOKEN"),
    "a key itself": (f"{KWARGS}.judge.api_key={CANARY}", "judge.api_key holds a secret"),
    "a key for a name": (f"{KWARGS}.judge.api_key_env=sk-{CANARY}", "api_key_env must be the name of an environment"),
    "expanded by the shell": (
        f"trainer.project_name=x-{CANARY}",
        "project_name holds the value of the variable MY_PAT",
    ),
    "address": (f"{KWARGS}.judge.base_url=https://me:canary@host/v1", "base_url is an address with a password in it"),
    "proxy": ("trainer.wandb_proxy=${oc.env:HTTPS_PROXY}", "takes the value of the variable HTTPS_PROXY"),
    "variable for Ray": (
        f"{ENV_VARS}.WANDB_API_KEY={CANARY}",
        "Ray writes to its logs. Remove it and set WANDB_API_KEY",
    ),
    "reference for Ray": (f"{ENV_VARS}.NCCL_DEBUG=${{oc.env:HOME}}", "verl gives Ray this text, not the value"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_secret_in_a_recipe_is_refused_and_not_printed(
    case: str, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    override, message = REFUSED[case]
    monkeypatch.setenv("MY_PAT", CANARY)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{CANARY}@proxy:80")
    with pytest.raises(ConfigError, match=message) as refusal:
        check_settings(compose(override))
    assert CANARY not in str(refusal.value)


def test_what_only_looks_like_a_secret_is_accepted(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("MY_TOKEN", "short"),
        ("TOKENIZERS_PARALLELISM", "quickstart"),
        ("RAY_AUTH_TOKEN_PATH", "/tmp/a"),
    ):
        monkeypatch.setenv(name, value)
    check_settings(compose(f"{KWARGS}.judge.api_key_env=OPENAI_API_KEY", f"{ENV_VARS}.NCCL_DEBUG=INFO"))
    check_settings(compose("trainer.project_name=${oc.env:HOME}", "trainer.experiment_name=short"))


@pytest.fixture
def carried(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> tuple[DictConfig, dict]:
    """A recipe after :func:`protect`, and what ``ray.init`` is then given; no Ray starts."""
    import ray

    monkeypatch.setenv("FROM_ENVIRONMENT", CANARY)
    monkeypatch.setenv(redaction.PATH_VARIABLE, "here/metrics.jsonl")
    config = compose(f"{ENV_VARS}.NCCL_DEBUG=canary-for-ray", "trainer.experiment_name=${trainer.project_name}-1")
    OmegaConf.update(config, "trainer.project_name", "${oc.env:FROM_ENVIRONMENT}")
    monkeypatch.setattr(ray, "init", lambda **kwargs: kwargs)
    monkeypatch.setattr("sys.argv", ["main_ppo.py", f"+{ENV_VARS}.NCCL_DEBUG=canary-for-ray"])
    redaction.protect(config)
    started = ray.init(**OmegaConf.to_container(config.ray_kwargs.ray_init))
    return config, started["runtime_env"]["env_vars"]


def test_ray_gets_its_variables_and_verl_prints_none_of_them(carried: tuple[DictConfig, dict]) -> None:
    config, given = carried
    assert given["NCCL_DEBUG"] == "canary-for-ray"
    assert "canary" not in str(config.ray_kwargs)
    assert "canary" not in given[redaction.COMMAND_VARIABLE]
    references = {".".join(path): text for path, text in json.loads(given[redaction.REFERENCES_VARIABLE])}
    assert references["trainer.project_name"] == "${oc.env:FROM_ENVIRONMENT}"
    assert references["trainer.experiment_name"] == "${trainer.project_name}-1"
    assert "trainer.default_local_dir" not in references
    assert given[redaction.PATH_VARIABLE] == str(Path.cwd() / "here/metrics.jsonl"), "the trainer may work elsewhere"


def test_stored_printed_and_tracked_configs_hold_references(
    carried: tuple[DictConfig, dict], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from verl.utils import tracking

    config, given = carried
    resolved = OmegaConf.to_container(config, resolve=True)
    assert CANARY in str(resolved), "this test would notice nothing"
    monkeypatch.setenv(redaction.REFERENCES_VARIABLE, given[redaction.REFERENCES_VARIABLE])
    monkeypatch.setattr(pprint, "PrettyPrinter", pprint.PrettyPrinter)
    seen: dict = {}
    monkeypatch.setattr(tracking, "ClearMLLogger", lambda project, experiment, config: seen.update(config))
    monkeypatch.setattr(tracking.Tracking, "__init__", tracking.Tracking.__init__)
    redaction.redact_verls_output()
    pprint.pprint(resolved)  # as TaskRunnerV1.run does
    tracking.Tracking("p", "e", "clearml", config=resolved)
    shown = capsys.readouterr().out
    for text in (shown, str(seen), str(redaction.hide(resolved))):
        assert "canary" not in text
        assert "${oc.env:FROM_ENVIRONMENT}" in text
        assert redaction.HIDDEN in text


@pytest.mark.slow
def test_main_ppo_stops_before_ray_with_one_line_and_a_refused_override_is_removed_from_hydras_files(
    playground_files: Path, tmp_path: Path
) -> None:
    """The real command."""
    command = [sys.executable, "-W", "ignore", "-m", "verl.trainer.main_ppo", "--config-dir", "recipes"]
    command += ["--config-name", "quickstart", f"playground={playground_files}", f"run_dir={tmp_path}/run"]
    command += [f"++{KWARGS}.judge.api_key={CANARY}"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert run.returncode == 2, run.stderr[-2000:]
    assert re.search(r"(?m)^verl-air: .*judge\.api_key holds a secret", run.stderr), run.stderr[-2000:]
    assert "Traceback" not in run.stderr
    assert "Started a local Ray instance" not in run.stdout + run.stderr
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(path.name == "overrides.yaml" for path in files)
    assert CANARY not in run.stdout + run.stderr + "".join(path.read_text(errors="replace") for path in files)
