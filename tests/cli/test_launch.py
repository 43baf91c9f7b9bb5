"""``verl-air launch`` up to the point where it would need a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.conftest import RECIPES
from verl_air.cli import COMMANDS, main
from verl_air.compose import read_recipe

JOINS = [f"ray_kwargs.ray_init.{key}=null" for key in ("num_cpus", "num_gpus", "object_store_memory")]
FAULTS = {
    "it sizes the cluster": ([], "ray_kwargs.ray_init.num_cpus=16: the nodes of a running cluster say what they have"),
    "no address": (JOINS, "no address: give --address HOST:PORT or set RAY_ADDRESS"),
    "divides by 3": ([*JOINS, "trainer.nnodes=3", "data.train_batch_size=48"], "no address"),
    "not by 5": ([*JOINS, "trainer.nnodes=5"], "trajectories do not divide among the 5 data-parallel ranks"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported_before_anything_starts(
    fault: str, playground_files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, message = FAULTS[fault]
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    sizes = ["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=null"]
    sizes += ["actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=null"]
    words = ["launch", "--config-dir", str(RECIPES), "quickstart", f"playground={playground_files}", *sizes]
    assert main([*words, *overrides]) == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_prints_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = RECIPES / "grpo-qwen2.5_14b-2x8-megatron.yaml"
    assert main(["launch", "--address", "n1:6379", str(recipe), "--dry-run", "run_dir=/shared/a run"]) == 0
    first, command = capsys.readouterr().out.splitlines()
    assert "would wait for trainer 2 x 6, reward model 2 x 2 GPU(s) at n1:6379" in first
    assert f"-m verl.trainer.main_ppo --config-dir {RECIPES} --config-name {recipe.stem} 'run_dir=/shared/a" in command


def test_relative_folders_are_resolved_and_the_variables_of_nodes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_JUDGE", "canary")
    recipe = str(RECIPES / "grpo-qwen2.5_14b-2x8-megatron.yaml")
    assert main(["launch", "--address", "n1:6379", recipe, "--dry-run", "data_dir=my data"]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    again = read_recipe(recipe, [word for word in words if "=" in word])
    assert again.data_dir == f"{tmp_path}/my data"
    assert again.run_dir == f"{tmp_path}/runs/grpo-qwen2.5_14b-2x8-megatron"
    judge = "++reward.custom_reward_function.reward_kwargs.judge.api_key_env=MY_JUDGE"
    assert main(["launch", recipe, "--variables", judge]) == 0
    shown = capsys.readouterr().out
    assert "MY_JUDGE" in shown.splitlines()
    assert "canary" not in shown


def test_an_unknown_option_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["launch", "quickstart", "--dryrun", "a=1"], ["report", "run", "--no-such"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert f"verl-air {words[0]}: error: unrecognized arguments" in capsys.readouterr().err


def test_there_are_six_commands() -> None:
    assert COMMANDS == ("data", "check", "doctor", "launch", "evaluate", "report")
