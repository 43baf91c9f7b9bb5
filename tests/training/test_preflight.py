"""A faulty recipe is refused before anything starts, in one line that names the key and the fix."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig

from tests.conftest import ROOT
from verl_air.cluster.model_shapes import find_shapes
from verl_air.compose import resolve_folders
from verl_air.config import AirConfig
from verl_air.data import read_rows, write_rows
from verl_air.errors import ConfigError, DataError, RewardError
from verl_air.training.preflight import check_recipe, check_sizes
from verl_air.training.preflight.inputs import check_data

Compose = Callable[..., DictConfig]


def test_the_quickstart_recipe_passes(compose: Compose) -> None:
    air = check_recipe(compose())
    assert air is not None
    assert air.active


def test_a_recipe_without_an_air_key_is_not_ours(compose: Compose) -> None:
    assert check_recipe(compose("~air", "trainer.v1.trainer_mode=sync")) is None


def test_neither_torch_nor_verl_is_imported_before_a_recipe_is_checked() -> None:
    code = "import sys, verl_air.training.preflight; sys.exit(bool({'torch', 'verl', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


REWARD = "reward.custom_reward_function"
ACTOR = "actor_rollout_ref.actor"
CORE = f"{ACTOR}.megatron"
FAULTS = {
    "unknown key": (["air.coeff=1"], r"air.coeff: unknown key \(did you mean 'coef'\?\)"),
    "unknown regularizer": (
        ["air.regularizer=airr"],
        r"air.regularizer: 'airr' is not registered \(did you mean 'air'",
    ),
    "verl's trainer": (["trainer.v1.trainer_mode=sync"], "trainer_mode=sync ignores the recipe's `air:`"),
    "no air key": (["~air"], "trainer_mode=air_sync needs an `air:` key"),
    "legacy trainer": (["trainer.use_v1=False"], "trainer.use_v1=False selects verl's legacy trainer"),
    "custom sampler": (["trainer.v1.sampler.custom_sampler.path=mine.py"], "AIR needs its own replay buffer"),
    "distillation": (["distillation.enabled=true"], "distillation replaces the actor's loss"),
    "adapters on Megatron": (
        [f"{ACTOR}.strategy=megatron", "actor_rollout_ref.model.lora.rank=8"],
        "LoRA .rank 8. with actor.strategy=megatron is not supported",
    ),
    "unmerged adapters on a CPU": (["actor_rollout_ref.model.lora_rank=8"], "lora.merge=False: .* Set it to True"),
    "consistency with adapters": (
        ["air.consistency=0.1", "actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora.merge=true"],
        "air.consistency=0.1 with LoRA .rank 8. is not supported",
    ),
    "consistency without old log-probs": (
        ["air.consistency=0.1", "air.old_log_probs=reuse"],
        "air.old_log_probs=reuse takes .* the recipe has air.consistency=0.1, which needs them before",
    ),
    "batch above the data": (["data.train_batch_size=4800"], "takes 1200 intents per step, and .* hold only 120"),
    "weight without data": (
        ["air.domain_weights={playground: 1, moral: 1}"],
        "has the key 'moral'; domains: playground",
    ),
    "data without weight": (["air.domain_weights={playground/kind/x: 1}"], "intents have no weight, e.g. playground/"),
    "loo of one": (["actor_rollout_ref.rollout.n=1"], "air.estimator=loo needs .*rollout.n >= 2, got 1"),
    "shrinkage of one": (
        ["actor_rollout_ref.rollout.n=1", "air.estimator=paper", "air.gap_shrinkage=1"],
        "air.gap_shrinkage needs .*rollout.n >= 2, got 1",
    ),
    "too few rows": (["air.open_per_intent=7", "data.train_batch_size=48"], "intents are incomplete"),
    "no training data": (["data.train_files=[nowhere.parquet]"], "nowhere.parquet: no such file"),
    "no validation data": (["data.val_files=[nowhere.parquet]"], "nowhere.parquet: no such file"),
    "no model": (["actor_rollout_ref.model.path=runs/no/such"], "model.path=runs/no/such: no such model folder"),
    "no judge": (["reward.reward_model.model_path=/no/such/m"], "model_path=/no/such/m: no such model folder"),
    "unknown module": ([f"{REWARD}.reward_kwargs.modules=[no_such_module]"], "no_such_module"),
    "unserved judge": (
        ["reward.reward_model.enable=false"],
        "'verdict_judge', to which playground/open/train is routed, asks a judge and there is none",
    ),
    "untrained judge": (
        [f"{REWARD}.reward_kwargs.judge.in_process=${{playground}}/model"],
        "'?verdict_judge, which scores playground/open/train, .* air.check_judge=False trains anyway",
    ),
    "no reward function": ([f"{REWARD}.path=null"], "custom_reward_function.path is not set"),
    "another reward function": ([f"{REWARD}.path=mine.py", "air.reward_scale=unit"], "unit need.* the columns that"),
    "legacy reward key": (
        ["custom_reward_function.path=mine.py"],
        "custom_reward_function.path: verl ignores this key at the top level; write reward.custom_reward_function.path",
    ),
    "padded context parallelism": (
        [
            *(f"{ACTOR}.strategy=megatron", f"{CORE}.context_parallel_size=2", f"{CORE}.vanilla_mbridge=false"),
            "actor_rollout_ref.model.use_remove_padding=false",
        ],
        "use_remove_padding=False is refused by verl's Megatron engine with context_parallel_size=2",
    ),
    "asynchronous saving": (
        [f"{ACTOR}.checkpoint.async_save=true"],
        "async_save=True: a checkpoint may be half written .* air.best_metric=null",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_fix(compose: Compose, fault: str) -> None:
    overrides, message = FAULTS[fault]
    with pytest.raises((ConfigError, DataError), match=message):
        check_recipe(compose(*overrides))


MEGATRON = [f"{ACTOR}.strategy=megatron", "trainer.n_gpus_per_node=8", f"{ACTOR}.ppo_micro_batch_size_per_gpu=1"]
UNEVEN = "{num_layers_in_first_pipeline_stage: 1, num_layers_in_last_pipeline_stage: 1}"
LOG_PROB = "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu"
DYNAMIC = f"{ACTOR}.use_dynamic_bsz=true"
MODEL = replace(find_shapes("Qwen/Qwen3-8B"), layers=6, heads=8, kv_heads=2, experts=4)
SIZE_FAULTS = {
    "meta-groups": (
        ["data.train_batch_size=30"],
        "train_batch_size=30 cannot hold whole meta-groups: a meta-group has 4 prompts .* Use a multiple, say 28",
    ),
    "sync steps": (
        ["trainer.v1.trainer_mode=air_separate_async", "trainer.v1.separate_async.parameter_sync_step=8"],
        "train_batch_size=48 over parameter_sync_step=8 leaves batches that cannot hold whole meta-groups",
    ),
    "gen batch": (["data.gen_batch_size=6"], "gen_batch_size=6 cannot hold whole meta-groups"),
    "mini-batch": ([f"{ACTOR}.ppo_mini_batch_size=96"], "ppo_mini_batch_size=96 is above data.train_batch_size=48"),
    "ranks": (["trainer.n_gpus_per_node=5"], "= 144 trajectories do not divide among the 5 data-parallel ranks"),
    "micro-batch": (
        [f"{ACTOR}.ppo_micro_batch_size_per_gpu=50"],
        "ppo_micro_batch_size_per_gpu=50 does not divide the 144 trajectories that each of 1 data-parallel rank",
    ),
    "log-prob micro-batch": (
        [f"{LOG_PROB}=50"],
        "log_prob_micro_batch_size_per_gpu=50 does not divide the 144 trajectories",
    ),
    "token budget": (
        [DYNAMIC, f"{ACTOR}.ppo_max_token_len_per_gpu=40"],
        "actor.ppo_max_token_len_per_gpu=40 cannot hold one sequence of ",
    ),
    "ulysses by GPUs": ([f"{ACTOR}.ulysses_sequence_parallel_size=2"], r"size=2 does not divide the 1 x 1 GPUs"),
    "ulysses by heads": (
        [f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=3", "trainer.n_gpus_per_node=3"],
        r"ulysses_sequence_parallel_size=3 does not divide attention heads \(8\)",
    ),
    "shards": (
        [f"{ACTOR}.fsdp_config.fsdp_size=2", "trainer.n_gpus_per_node=3"],
        r"fsdp_size=2 does not divide the 1 x 3 GPUs of trainer \(3\)",
    ),
    "ulysses by kv heads": (
        [f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=4", "trainer.n_gpus_per_node=4"],
        "ulysses_sequence_parallel_size=4 is neither a divisor nor a multiple of 3 kv heads",
    ),
    "tp x pp x cp": ([*MEGATRON, f"{CORE}.context_parallel_size=3"], r"tp 1 x pp 1 x cp 3=3 does not divide .* \(8\)"),
    "heads": (
        [*MEGATRON, f"{CORE}.tensor_model_parallel_size=16", "trainer.nnodes=2"],
        r"tensor_model_parallel_size=16 does not divide attention heads \(8\)",
    ),
    "kv heads": (
        [*MEGATRON, f"{CORE}.tensor_model_parallel_size=4", "trainer.nnodes=1"],
        "tensor_model_parallel_size=4 is neither a divisor nor a multiple of 3 kv heads",
    ),
    "layers": ([*MEGATRON, f"{CORE}.pipeline_model_parallel_size=4"], r"pipeline_.*=4 does not divide layers \(6\)"),
    "virtual stages": (
        [*MEGATRON, f"{CORE}.pipeline_model_parallel_size=2", f"{CORE}.virtual_pipeline_model_parallel_size=2"],
        r"pp 2 x vpp 2=4 does not divide layers \(6\)",
    ),
    "experts by GPUs": (
        [*MEGATRON, f"{CORE}.expert_model_parallel_size=16", f"{CORE}.expert_tensor_parallel_size=1"],
        "ep 16 x etp 1 x pp 1=16 does not divide",
    ),
    "experts": (
        [*MEGATRON, f"{CORE}.expert_model_parallel_size=8"],
        r"expert_model_parallel_size=8 does not divide experts \(4\)",
    ),
}


@pytest.mark.parametrize("fault", SIZE_FAULTS)
def test_sizes_must_divide(compose: Compose, fault: str) -> None:
    overrides, message = SIZE_FAULTS[fault]
    kv_heads = 3 if fault.endswith("kv heads") else 2
    with pytest.raises(ConfigError, match=message):
        check_sizes(compose(*overrides), replace(MODEL, kv_heads=kv_heads))


def test_experts_of_a_dense_model_and_what_is_not_checked(compose: Compose) -> None:
    with pytest.raises(ConfigError, match="expert_model_parallel_size=2, but the model has no experts"):
        check_sizes(compose(*MEGATRON, f"{CORE}.expert_model_parallel_size=2"), replace(MODEL, experts=0))
    check_sizes(compose(*MEGATRON, f"{CORE}.tensor_model_parallel_size=8"))  # heads: only where the model is given
    fifty = ["data.train_batch_size=50", f"{ACTOR}.ppo_mini_batch_size=50"]
    fifty += [f"{ACTOR}.ppo_micro_batch_size_per_gpu=50", f"{LOG_PROB}=50"]
    check_sizes(compose("~air", *fifty))  # no meta-groups without AIR
    check_sizes(compose(f"{ACTOR}.strategy=veomni", "data.train_batch_size=30"))


@pytest.mark.parametrize(
    "overrides",
    [
        [f"{ACTOR}.fsdp_config.fsdp_size=2"],  # one flat mesh
        [
            *(*MEGATRON, f"{LOG_PROB}=1", f"{CORE}.pipeline_model_parallel_size=4"),
            f"{CORE}.override_transformer_config={UNEVEN}",
        ],
        # 48 prompts are filled up to two mini-batches of 32: 192 trajectories
        [f"{ACTOR}.ppo_mini_batch_size=32", f"{ACTOR}.ppo_micro_batch_size_per_gpu=96", f"{LOG_PROB}=64"],
    ],
    ids=["more shards than GPUs", "uneven pipeline stages", "a batch that is filled up"],
)
def test_what_verl_accepts_is_not_refused(compose: Compose, overrides: list[str]) -> None:
    check_sizes(compose(*overrides), MODEL)


def test_an_unknown_reward_is_named_with_the_nearest(compose: Compose) -> None:
    config = compose()
    config.reward.custom_reward_function.reward_kwargs.routes["playground/anchor"] = "multiple_choise"
    with pytest.raises(ConfigError, match=r"no reward named 'multiple_choise'.*multiple_choice"):
        check_recipe(config)


def test_rows_without_a_route_are_named(compose: Compose) -> None:
    config = compose()
    del config.reward.custom_reward_function.reward_kwargs.routes["playground/open"]
    with pytest.raises(RewardError, match=r"no route for data_source 'playground/id'.*role 'open'"):
        check_recipe(config)


def test_open_rows_without_a_plain_request_are_named(compose: Compose, playground_files: Path, tmp_path: Path) -> None:
    rows = list(read_rows(playground_files / "train.parquet"))
    rows[2]["extra_info"]["extras"] = "{}"
    write_rows(tmp_path / "train.parquet", rows)
    config = compose(f"data.train_files=[{tmp_path / 'train.parquet'}]")
    check_data(config, AirConfig())
    with pytest.raises(DataError, match=r"train.parquet, row 2: air.consistency needs the plain request"):
        check_data(config, AirConfig(consistency=0.1))


def test_prompts_of_another_response_style_are_named(compose: Compose, playground_files: Path, tmp_path: Path) -> None:
    rows = list(read_rows(playground_files / "id.parquet"))
    rows[0]["extra_info"]["extras"] = json.dumps({"style": "plain"})
    write_rows(tmp_path / "id.parquet", rows)
    with pytest.raises(DataError, match=r"id.parquet: its prompts ask for the response style plain, and reward_kwargs"):
        check_recipe(compose(f"data.val_files=[{tmp_path}/id.parquet]"))


@pytest.mark.parametrize("role", ["anchor", "open"])
def test_an_intent_that_lost_its_rows_is_named(
    compose: Compose, playground_files: Path, tmp_path: Path, role: str
) -> None:
    table = pq.read_table(playground_files / "train.parquet")
    rows = table.to_pylist()
    victim = rows[0]["extra_info"]["intent_id"]
    keep = [row["extra_info"]["intent_id"] != victim or row["extra_info"]["role"] != role for row in rows]
    pq.write_table(table.filter(keep), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=rf"1 of 120 intents are incomplete[\s\S]*{re.escape(victim)}"):
        check_recipe(compose(f"data.train_files=[{tmp_path}/train.parquet]"))


def test_relative_folders_become_absolute_once(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = compose("run_dir=runs/a", "data_dir=hdfs://host/data", "trainer.rollout_data_dir=null")
    assert resolve_folders(config) == {"run_dir": f"{tmp_path}/runs/a"}
    assert config.trainer.default_local_dir == f"{tmp_path}/runs/a/checkpoints"
    assert resolve_folders(config) == {}
    own = compose("~run_dir", "trainer.default_local_dir=ckpt", "trainer.validation_data_dir=null")
    own.trainer.rollout_data_dir = own.hydra = None
    assert resolve_folders(own) == {"trainer.default_local_dir": f"{tmp_path}/ckpt"}
