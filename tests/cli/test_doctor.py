"""``verl-air doctor``: one line per check, with what is wrong and how to fix it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import RECIPES, ROOT, composed, edited
from verl_air.cli import main
from verl_air.cluster.cpu_plan import measure_speed
from verl_air.errors import ConfigError
from verl_air.training.preflight.sizes import check_model_sizes

FSDP, MEGATRON = "grpo-qwen2.5_14b-1x8-fsdp2", "grpo-qwen2.5_14b-2x8-megatron"
ROLE = "actor_rollout_ref"
CORE = f"{ROLE}.actor.megatron"
MEASURED = cache(measure_speed)  # once for all tests
JUDGE_SERVER = "++reward.custom_reward_function.reward_kwargs.judge.base_url"


@pytest.fixture
def doctor(playground_files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run it on a recipe of this project: exit status, and the status and text of each check."""
    monkeypatch.setattr("verl_air.cli.doctor.measure_speed", MEASURED)

    def run(recipe: str, *arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
        overrides = [f"playground={playground_files}"] if recipe.startswith("quickstart") else []
        status = main(["doctor", "--config-dir", str(RECIPES), recipe, *overrides, *arguments])
        found = re.findall(r"(?m)^(ok|FAIL|skip) +(\w+): ((?:.*\n)(?: .*\n)*)", capsys.readouterr().out)
        return status, {name: (outcome, text) for outcome, name, text in found}

    return run


def test_a_sound_environment_and_recipe_pass(doctor) -> None:
    status, checks = doctor("quickstart")
    outcomes = {name: outcome for name, (outcome, _) in checks.items()}
    assert (status, set(outcomes.values())) == (0, {"ok"})
    for name, text in {
        "machine": "CPU (VERL_PLATFORM=cpu)",
        "plugin": "loaded; trainers air_sync",
        "versions": "verl 0.9.1",
        "names": "regularizers air",
        "memory": "GiB; at most about ",
        "recipe": "air: coef=0.02, aux_reward=task",
        "judge": "playground/open/train: not checked: verl serves it, in training only",
        "nodes": "this machine: 2 GPU(s); the recipe asks for trainer 1 x 1, reward model 1 x 1",
    }.items():
        assert text in checks[name][1]


FAULTS = {
    "batch": ("quickstart", ["data.train_batch_size=30"], "recipe", "train_batch_size=30 cannot hold whole meta-group"),
    "no recipe": ("quickstarts", [], "recipe", "no recipe 'quickstarts' .*did you mean 'quickstart'"),
    "model": ("quickstart", [f"{ROLE}.model.path=runs/no/such"], "model", "no such model folder"),
    "style": (
        "quickstart",
        ["+reward.custom_reward_function.reward_kwargs.format.prefill=thought"],
        "style",
        "format.prefill='thought' is not what the chat template begins a response with: remove it",
    ),
    "data": ("quickstart", ["data.train_files=[nowhere.parquet]"], "data", "nowhere.parquet: no such file"),
    "no judge": ("quickstart", ["reward.reward_model.enable=false"], "rewards", "asks a judge and there is none"),
    "deaf judge": ("quickstart", [f"{JUDGE_SERVER}=http://127.0.0.1:9/v1"], "rewards", "no judge answers at .*:9/v1"),
    "untrained judge": (
        "quickstart",
        [JUDGE_SERVER.replace("base_url", "in_process=${playground}/model")],
        "judge",
        "verdict_judge, which scores playground/open/train,",
    ),
    "no key": (
        "quickstart",
        [
            f"{JUDGE_SERVER}=http://127.0.0.1:9/v1",
            f"{JUDGE_SERVER.removesuffix('base_url')}api_key_env=VERL_AIR_NO_KEY",
        ],
        "rewards",
        "the environment variable VERL_AIR_NO_KEY is not set",
    ),
    "simulated GPUs": ("quickstart", ["ray_kwargs.ray_init.num_gpus=1"], "nodes", "1 GPU.*that the reward model pool"),
    "GPU recipe": (FSDP, [], "nodes", "trainer.device=cuda and this machine runs with VERL_PLATFORM=cpu"),
    "cluster": ("quickstart", ["--address", "localhost"], "nodes", "write HOST:PORT"),
    "memory of this machine": (
        "quickstart",
        [
            "data.train_batch_size=48000",
            f"{ROLE}.actor.ppo_mini_batch_size=48000",
            f"{ROLE}.actor.ppo_micro_batch_size_per_gpu=144000",
            f"{ROLE}.rollout.log_prob_micro_batch_size_per_gpu=144000",
        ],
        "memory",
        "Ray kills workers above 95%",
    ),
    "memory": (FSDP, ["--gpu-gib", "60"], "memory", r"^update needs about 64\.7 GiB .*\n      model "),
    "unknown model": (FSDP, [f"{ROLE}.model.path=acme/model"], "memory", r"Give its config.json with --model-config"),
    "no config": (FSDP, ["--model-config", "/no/such.json"], "memory", "cannot be read as a model's config.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_its_check(doctor, fault: str) -> None:
    recipe, arguments, name, message = FAULTS[fault]
    status, checks = doctor(recipe, *arguments)
    assert status == 1
    assert checks[name][0] == "FAIL"
    assert re.search(message, checks[name][1]), checks[name]


SIZES = {
    "heads": ([f"{CORE}.tensor_model_parallel_size=6"], "tensor_model_parallel_size=6 does not divide attention heads"),
    "layers": (
        [f"{CORE}.pipeline_model_parallel_size=5", "trainer.n_gpus_per_node=5"],
        r"pipeline_model_parallel_size=5 does not divide layers \(48\)",
    ),
    "experts": (
        [f"{CORE}.expert_model_parallel_size=2", f"{CORE}.expert_tensor_parallel_size=1"],
        "the model has no experts",
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_compared_with_those_of_a_hub_model(name: str) -> None:
    overrides, message = SIZES[name]
    with pytest.raises(ConfigError, match=message):
        check_model_sizes(edited(composed(MEGATRON), *overrides))


def test_what_depends_on_a_failed_check_is_skipped_with_the_reason(doctor) -> None:
    _, checks = doctor("quickstart", "data.train_files=[nowhere.parquet]")
    assert checks["rewards"] == ("skip", "needs data first\n")
    _, checks = doctor("quickstart", "data.train_batch_size=30")
    for name in ("model", "data", "rewards", "memory", "nodes"):
        assert checks[name][0] == "skip"
        assert re.match("needs (recipe|data) first", checks[name][1])


def test_a_recipe_at_paper_scale_is_planned_without_a_gpu(doctor) -> None:
    status, checks = doctor(FSDP)
    assert status == 1  # its data and GPUs are not here
    outcome, text = checks["memory"]
    assert outcome == "ok"
    assert "GiB per GPU of 79: update 64.7" in text
    assert text.count("together") == 3
    _, checks = doctor(MEGATRON, "trainer.device=cpu", "--gpu-gib", "141")
    assert "GiB per GPU of 141" in checks["memory"][1]
    assert checks["nodes"][0] == "skip"
    assert "--address HOST:PORT checks a Ray cluster" in checks["nodes"][1]


def test_off_policy_updates_are_warned_of(doctor) -> None:
    micro = f"{ROLE}.actor.ppo_micro_batch_size_per_gpu=48"
    status, checks = doctor("quickstart", f"{ROLE}.actor.ppo_mini_batch_size=16", micro)
    assert status == 0
    assert "\n      warning: actor.ppo_epochs=1" in checks["recipe"][1]


def test_a_file_of_ones_own(doctor, tmp_path: Path, playground_files: Path, capsys) -> None:
    shutil.copytree(RECIPES, tmp_path / "mine")
    recipe = str(tmp_path / "mine" / "quickstart.yaml")
    assert main(["doctor", recipe, f"playground={playground_files}", "--gpu-gib", "79"]) == 0
    assert "trainer  fsdp2 on 1 x 1 GPUs" in capsys.readouterr().out
    assert main(["doctor", recipe, "--gpu-gib", "0"]) == 2
    assert "--gpu-gib 0: must be above 0" in capsys.readouterr().err


def test_the_plugin_policy_of_verl_is_named(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import verl  # noqa: F401  # with its plugins, for the tests that follow in this process

    monkeypatch.delitem(sys.modules, "verl_air.plugin", raising=False)
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    assert main(["doctor"]) == 1
    assert "did not load verl_air.plugin (VERL_USE_EXTERNAL_PLUGINS=none)" in capsys.readouterr().out


def test_versions_that_do_not_work_are_named_with_the_fix(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    needed = ["verl==0.1", "no-such-package>=2", "matplotlib; extra == 'docs'"]
    monkeypatch.setattr("verl_air.cli.installation.requires", lambda name: needed)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  versions: verl 0.9.1 is installed, but verl==0.1 is required: pip install 'verl==0.1'\n" in out
    assert "      no-such-package is not installed: pip install 'no-such-package>=2'\n" in out
    assert "matplotlib" not in out


@pytest.mark.slow
def test_a_real_process_prints_the_doctors_lines_only() -> None:
    """No line of other packages on stdout or stderr; --verbose shows them."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "verl_air", *words]
        hidden = {**os.environ, "VERL_PLATFORM": "", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(command, env=hidden, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)

    done = run("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert [re.split(" +|: ", line)[1] for line in done.stdout.splitlines() if not line.startswith(" ")] == [
        "machine",
        "plugin",
        "versions",
        "names",
    ]
    assert "FAIL  machine: this machine has no GPU that torch sees" in done.stdout
    verbose = run("doctor", "--verbose", "--json")
    assert "Warning" in verbose.stderr
    report = json.loads(verbose.stdout.splitlines()[-1])
    assert report["versions"]["verl"] == "0.9.1"
    assert "machine" in [check["name"] for check in report["checks"] if check["status"] == "FAIL"]
