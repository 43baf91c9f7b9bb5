"""A faulty recipe is refused before anything starts, in one line that names the key and the fix."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig

from tests.conftest import ROOT
from verl_air.cluster.model_shapes import find_shapes
from verl_air.compose import resolve_folders
from verl_air.config import AirConfig
from verl_air.data import read_rows, write_rows
from verl_air.errors import ConfigError, DataError, RewardError
from verl_air.training.preflight import check_recipe, check_settings, check_sizes
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


ASYNC = "trainer.v1.trainer_mode=air_colocate_async"
RATIO, REUSE = "air.importance=ratio", "air.old_log_probs=reuse"
HALVES = [f"{ACTOR}.ppo_mini_batch_size=24", f"{ACTOR}.ppo_micro_batch_size_per_gpu=72"]
CORRECTION = "algorithm.rollout_correction"
TOKEN, BYPASS = f"{CORRECTION}.rollout_is=token", f"{CORRECTION}.bypass_mode=true"
NO_LOG_PROBS = "actor_rollout_ref.rollout.calculate_log_probs=false"
RAW = ["actor_rollout_ref.rollout.logprobs_mode=raw_logprobs", "actor_rollout_ref.rollout.temperature=0.7"]


@pytest.mark.parametrize("overrides", [[f"{ACTOR}.ppo_epochs=2"], HALVES, [ASYNC]], ids=["epochs", "halves", "async"])
def test_off_policy_updates_without_importance_are_warned_of(compose: Compose, overrides: list[str]) -> None:
    with pytest.warns(UserWarning, match="air.importance=ratio"):
        check_settings(compose(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([RATIO, ASYNC], r"corrects nothing. Set algorithm.rollout_correction.rollout_is=sequence .*bypass_mode=True"),
        ([RATIO, ASYNC, TOKEN, f"{CORRECTION}.rollout_is_threshold=null"], "corrects nothing"),
        ([RATIO, ASYNC, TOKEN, NO_LOG_PROBS], "needs the rollout's log-probs: set .*calculate_log_probs=True"),
        ([RATIO, ASYNC, BYPASS, NO_LOG_PROBS], "needs the rollout's log-probs: set .*calculate_log_probs=True"),
        ([RATIO, ASYNC, TOKEN, *RAW], "Set it to processed_logprobs"),
        ([RATIO, ASYNC, BYPASS, f"{ACTOR}.policy_loss.loss_mode=bypass_mode"], "loss_mode=bypass_mode corrects inside"),
        ([RATIO, ASYNC, BYPASS, TOKEN], "ignores rollout_is and rollout_rs"),
        ([ASYNC, TOKEN], "rollout_is corrects the policy loss alone .* Set air.importance=ratio"),
        ([ASYNC, BYPASS], "bypass_mode corrects the policy loss alone .* Set air.importance=ratio"),
        ([REUSE, ASYNC], "the recipe has .*air_colocate_async. Set air.old_log_probs=recompute"),
        ([REUSE, f"{ACTOR}.ppo_epochs=2"], "ppo_epochs=2"),
        ([REUSE, *HALVES], "ppo_mini_batch_size=24 of 48 prompts"),
        ([REUSE, "algorithm.use_kl_in_reward=true"], "use_kl_in_reward=True"),
        ([REUSE, RATIO, BYPASS], "bypass_mode=True, which takes the rollout's"),
        ([REUSE, RATIO, TOKEN, f"{CORRECTION}.rollout_is_batch_normalize=true"], "needs the whole batch"),
        ([REUSE, f"{ACTOR}.router_replay.mode=R2"], "router_replay.mode=R2"),
    ],
)
def test_corrections_that_cannot_work_are_refused(compose: Compose, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(compose(*overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        *([RATIO, ASYNC, TOKEN], [RATIO, ASYNC, BYPASS], [RATIO, *HALVES], [RATIO, TOKEN], [REUSE, RATIO, TOKEN]),
        [REUSE],
        [ASYNC, TOKEN, "air.coef=0"],  # without a term of ours nothing of ours can disagree
    ],
)
def test_corrections_that_work_pass(compose: Compose, overrides: list[str]) -> None:
    assert check_settings(compose(*overrides)) is not None


@pytest.fixture
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


def in_a_store(playground_files: Path, name: str) -> str:
    """A file of the playground, in fsspec's store in memory, which stands for s3:// and gs://."""
    address = f"memory://data/{name}"
    with fsspec.open(address, "wb") as file:
        file.write((playground_files / name).read_bytes())
    return address


@pytest.mark.usefixtures("_online")
def test_a_file_in_a_store_is_checked_as_verl_reads_it(compose: Compose, playground_files: Path) -> None:
    train, held_out = (in_a_store(playground_files, name) for name in ("train.parquet", "id.parquet"))
    check_recipe(compose(f"data.train_files=[{train}]", f"data.val_files=[{held_out}]"))
    with pytest.raises(ConfigError, match=r"takes 1200 intents .* memory://data/train.parquet hold only 120"):
        check_recipe(compose(f"data.train_files=[{train}]", "data.train_batch_size=4800"))
    assert (
        datasets.load_dataset("parquet", data_files=train)["train"].num_rows
        == pq.read_metadata(playground_files / "train.parquet").num_rows
    )


@pytest.mark.usefixtures("_online")
@pytest.mark.parametrize("address", ["memory://data/none.parquet", "s3://bucket/x.parquet", "gs://bucket/x.parquet"])
def test_a_file_of_a_store_that_cannot_be_read_is_named(compose: Compose, address: str) -> None:
    scheme = address.split(":")[0]
    package = {"s3": "s3fs", "gs": "gcsfs"}.get(scheme)
    if package and find_spec(package):
        pytest.skip(f"{package} is installed, and there is no such store to ask")
    with pytest.raises(DataError, match=rf"{address}: cannot be read \(.*{package or 'none.parquet'}.*credentials"):
        check_recipe(compose(f"data.train_files=[{address}]"))


def test_a_store_is_refused_where_the_hub_is_switched_off(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        DataError, match=r"s3://b/x.parquet: HF_HUB_OFFLINE is set, and verl's `datasets` then reads no"
    ):
        check_recipe(compose("data.train_files=[s3://b/x.parquet]"))


HDFS = """#!/bin/sh
[ "$1 $2" = "dfs -get" ] && cp "$STORE/$(basename "$3")" "$4"
"""


def test_a_file_of_hdfs_is_copied_by_verl_and_one_that_does_not_arrive_is_named(
    compose: Compose, playground_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl.utils import hdfs_io

    command = tmp_path / "hdfs"
    command.write_text(HDFS)
    command.chmod(0o755)
    monkeypatch.setattr(hdfs_io, "_HDFS_BIN_PATH", str(command))
    monkeypatch.setenv("STORE", str(playground_files))
    cache = f"data.cache_dir={tmp_path}/cache"
    check_recipe(compose("data.train_files=[hdfs://host/a/train.parquet]", cache))
    with pytest.raises(DataError, match=r"hdfs://host/a/none.parquet: verl's copy \(`hdfs dfs -get`\) brought no file"):
        check_recipe(compose("data.train_files=[hdfs://host/a/none.parquet]", cache))


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


@pytest.mark.slow
def test_main_ppo_stops_before_ray_with_one_line(playground_files: Path) -> None:
    """The real command: status 2, our line on stderr, and no Ray cluster was started."""
    command = [sys.executable, "-W", "ignore", "-m", "verl.trainer.main_ppo", "--config-dir", "recipes"]
    command += ["--config-name", "quickstart", f"playground={playground_files}", "data.train_batch_size=30"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert run.returncode == 2
    assert "verl-air: data.train_batch_size=30 cannot hold whole meta-groups" in run.stderr
    assert "Traceback" not in run.stderr
    assert "Started a local Ray instance" not in run.stdout + run.stderr


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _without_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()


POLICIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no chat template": (_without_template, "its tokenizer has no chat template .*custom_chat_template"),
    "vocabulary larger": (
        lambda model: _edit(model / "config.json", vocab_size=5000),
        "tokens and the model 5000: not",
    ),
    "vocabulary smaller": (
        lambda model: _edit(model / "config.json", vocab_size=20),
        "tokens and the model 20: not its",
    ),
    "short context": (
        lambda model: _edit(model / "config.json", max_position_embeddings=64),
        r"context of 64 tokens is shorter than data.max_prompt_length \+ data.max_response_length = 80",
    ),
    "no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), "config or tokenizer cannot be read"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_that_does_not_fit_is_refused(
    compose: Compose, playground_files: Path, tmp_path: Path, name: str
) -> None:
    spoil, message = POLICIES[name]
    model = shutil.copytree(playground_files / "model", tmp_path / "model")
    spoil(model)
    with pytest.raises(ConfigError, match=message) as fault:
        check_recipe(compose(f"actor_rollout_ref.model.path={model}"))
    assert "\n" not in str(fault.value)


def test_a_padded_vocabulary_is_said_but_taken(compose: Compose, playground_files: Path, tmp_path: Path) -> None:
    model = shutil.copytree(playground_files / "model", tmp_path / "model")
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    _edit(model / "config.json", vocab_size=vocabulary + 3)
    with pytest.warns(UserWarning, match=r"3 of the model's .* are not in its tokenizer"):
        check_recipe(compose(f"actor_rollout_ref.model.path={model}"))


def test_positions_that_are_scaled_are_no_limit(compose: Compose, playground_files: Path, tmp_path: Path) -> None:
    model = shutil.copytree(playground_files / "model", tmp_path / "model")
    scaled = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}
    _edit(model / "config.json", max_position_embeddings=64, rope_parameters=scaled)
    check_recipe(compose(f"actor_rollout_ref.model.path={model}"))
