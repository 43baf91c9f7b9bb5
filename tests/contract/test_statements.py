"""What we rely on in verl's signatures and code, one line each: where, what, and which file of ours relies on it.

What a call does is shown by running it, in the other modules of this folder.
"""

from __future__ import annotations

from functools import reduce
from importlib import import_module

import pytest

from tests.contract.expect import calls_in, function_in, holds, source_of, takes, text_of

TRAINER, BUFFER, QUEUE = (f"verl_air/training/{name}.py" for name in ("trainer", "replay_buffer", "queue_io"))
AGENTS, RECORDS = (f"verl_air/training/{name}.py" for name in ("agent_loop", "records"))
PATCHES, FOLDER, LOSS = (f"verl_air/training/{name}.py" for name in ("verl_patches", "run_folder", "actor_loss"))
CPU, TRANSFER = "verl_air/cpu", "verl_air/cpu/checkpoint_engine.py"
BASE = "verl.trainer.ppo.v1.trainer_base"
PPO, BUFFERS = f"{BASE}:PPOTrainer", "verl.trainer.ppo.v1.replay_buffer"
CHECKPOINTS, FSDP = "verl.checkpoint_engine.base", "verl.workers.engine.fsdp.transformer_impl"

SIGNATURES = {
    f"{PPO}.__init__": ("config", TRAINER),
    f"{PPO}._init_dataloader": ("", TRAINER),
    f"{PPO}._next_train_batch": ("num_prompts", TRAINER),
    f"{PPO}._fetch_one_gen_batch": ("", TRAINER),
    f"{PPO}._add_prompts_to_generate": ("num_prompts", TRAINER),
    f"{PPO}._build_replay_buffer": ("", TRAINER),
    f"{PPO}.on_init_end": ("", TRAINER),
    f"{PPO}.on_train_begin": ("", RECORDS),
    f"{PPO}.fit": ("agent_loop_manager", TRAINER),
    f"{PPO}._load_checkpoint": ("", TRAINER),
    f"{PPO}.on_step_begin": ("", TRAINER),
    f"{PPO}._compute_reward_colocate": ("batch metrics", TRAINER),
    f"{PPO}._compute_advantage": ("batch metrics", TRAINER),
    f"{PPO}._save_checkpoint": ("", RECORDS),
    f"{PPO}._val_metrics_update": (
        "data_sources sample_uids reward_extra_infos_dict sample_turns expected_acc_counts",
        RECORDS,
    ),
    f"{PPO}._dump_generations": ("inputs outputs gts scores reward_extra_infos_dict dump_path", RECORDS),
    f"{BASE}:register_trainer": ("name", TRAINER),
    "verl.workers.engine_workers:ActorRolloutRefWorker.set_loss_fn": ("loss_fn", TRAINER),
    "verl.experimental.reward_loop.reward_loop:RewardLoopManager.compute_rm_score": ("data", PATCHES),
    "verl.workers.utils.losses:ppo_loss": ("config model_output data dp_group", LOSS),
    "transfer_queue:kv_clear": ("keys partition_id", "verl_air/training/failures.py"),
    "transfer_queue:async_kv_put": ("key partition_id fields tag data_parser", AGENTS),
    "transfer_queue:kv_batch_get": ("keys partition_id select_fields", QUEUE),
    "transfer_queue:kv_batch_put": ("keys partition_id fields tags data_parser", QUEUE),
    **{
        f"{BUFFERS}:{cls}.{method}": (parameters, BUFFER)
        for cls in ("ReplayBuffer", "ReplayBufferAsync")
        for method, parameters in {
            "sample": "global_steps partition_id batch_size",
            "_terminal_eviction_reasons": "global_steps partition_id",
            "_sampleable_terminal_keys": "partition_id eviction_reasons",
            "_select_prompt_uids": "partition_id sampleable_keys batch_size",
            "_sync_metadata_from_transfer_queue": "",
            "_wait_for_next_poll": "partition_id last_debug_time",
        }.items()
    },
    f"{CHECKPOINTS}:CheckpointEngineRegistry.register": ("backend", TRANSFER),
    f"{CHECKPOINTS}:CheckpointEngine.send_weights": ("weights global_steps", TRANSFER),
    f"{CHECKPOINTS}:CheckpointEngine.receive_weights": ("global_steps", TRANSFER),
    f"{CHECKPOINTS}:CheckpointEngine.build_topology": ("actor_wg_world_size rollout_world_size metadata", TRANSFER),
    "verl.plugin.platform:PlatformRegistry.register": ("platform", CPU),
    "verl.workers.engine:EngineRegistry.register": ("model_type backend device vendor", CPU),
    f"{FSDP}:FSDPEngine.__init__": ("model_config engine_config optimizer_config checkpoint_config", CPU),
    f"{FSDP}:FSDPEngineWithLMHead._build_fsdp_module": ("module", CPU),
}


@pytest.mark.parametrize("where", SIGNATURES)
def test_signatures(where: str) -> None:
    module, _, path = where.partition(":")
    parameters, used_by = SIGNATURES[where]
    try:
        function = reduce(getattr, path.split("."), import_module(module))
    except AttributeError:
        holds(False, f"there is a {where}", used_by=used_by)
    takes(function, *parameters.split(), used_by=used_by)


# (module, function) -> (code that is in it, what it says, who relies on it)
CODE = {
    (BASE, "PPOTrainer.__init__"): [
        ("self.trainer_mode = self.config.trainer.v1.trainer_mode", "reads trainer.v1.trainer_mode", TRAINER),
        ("self.parameter_sync_step", "sets parameter_sync_step", TRAINER),
    ],
    (BASE, "PPOTrainer._init_dataloader"): [
        ("'sync_refill_failed_groups'", "reads the switch that makes verl fetch prompts one by one", TRAINER),
        ("self.steps_per_epoch = ", "counts steps, which we count again", TRAINER),
        ("self.total_training_steps = ", "counts steps, which we count again", TRAINER),
        ("self.train_dataset = ", "makes the data set that we sample from", TRAINER),
        ("self.train_dataloader = ", "makes the loader that we replace", TRAINER),
        ("config.actor_rollout_ref.actor.optim.total_training_steps", "hands steps to the optimizer", TRAINER),
    ],
    (BASE, "PPOTrainer._build_replay_buffer"): [
        ("'sync_refill_failed_groups'", "reads the switch that we set before verl's constructor", TRAINER),
        ("ReplayBuffer if self.trainer_mode == 'sync' else ReplayBufferAsync", "compares modes by name", TRAINER),
    ],
    (BASE, "PPOTrainer._log_rollout_data"): [
        ("reward_extra_infos_dict = {'uid': [batch.keys[", "stores training rollouts with keys under `uid`", TRAINER),
        ("dump_path=rollout_data_dir", "names the folder that distinguishes them", TRAINER),
    ],
    (BASE, "PPOTrainer._validate"): [
        ("{'uid': dump_all_keys}", "stores validation rollouts with keys under `uid`", TRAINER),
        ("extra_field.get('reward_extra_info', {})", "takes reward columns from extra_fields", PATCHES),
    ],
    ("verl.utils.dataset.rl_dataset", None): [
        (" = datasets.concatenate_datasets(", "RLHFDataset.dataframe is a datasets.Dataset, read by column", TRAINER),
    ],
    ("verl.trainer.ppo.v1.trainer_separate_async", "PPOTrainerSeparateAsync._setup"): [
        ("flush=True", "passes flush to a logger, which refuses it (fixed: remove let_logger_flush)", PATCHES),
    ],
    ("verl.trainer.main_ppo", None): [
        (".get('agent_loop_manager_class')", "takes the class of the agent-loop manager from the config", TRAINER),
    ],
    ("verl.experimental.reward_loop.reward_loop", "RewardLoopManager._init_reward_loop_workers"): [
        ("self.reward_loop_workers.append(", "keeps the reward workers, which we call", TRAINER),
    ],
    ("verl.trainer.ppo.v1.trainer_separate_async", "PPOTrainerSeparateAsync._step_had_idle"): [
        ("getattr(self.replay_buffer, 'poll_interval', 2.0)", "takes poll_interval as the threshold of idling", BUFFER),
    ],
    (BUFFERS, "ReplayBuffer._wait_for_next_poll"): [
        ("time.sleep(self.poll_interval)", "sleeps for poll_interval, which we set for the call", BUFFER),
        ("return last_debug_time", "returns what it was given until it logs", BUFFER),
    ],
    (BUFFERS, "ReplayBuffer._sync_metadata_from_transfer_queue"): [
        ("data = tq.kv_list()", "lists all partitions, our notes too", BUFFER),
    ],
    (BASE, "PPOTrainer._reissue_inflight_prompts"): [
        ("tag.get('status') in ('pending', 'running')", "starts again what a restored queue calls pending", TRAINER),
    ],
    ("verl.trainer.ppo.v1.agent_loop_tq", None): [
        ("trajectory=trajectory, trace=trace, session_id=i, **prompt", "hands each session its prompt's row", AGENTS),
        ("await _settle_session_tasks(tasks)", "a prompt is terminal once all its sessions have ended", AGENTS),
        ("field['loss_mask'] = field['response_mask']", "both masks are one, of the response's length", QUEUE),
    ],
    ("verl.experimental.agent_loop.agent_loop", None): [
        ("extra_fields['reward_extra_info'] = result['reward_extra_info']", "rewards travel in extra_fields", QUEUE),
        ("output['response_mask'] = torch.tensor(output.pop('response_mask'), dtype=torch.int64)", "dtype", QUEUE),
    ],
    ("transfer_queue.interface", None): [
        ("fields_to_return = batch_meta.field_names", "a write returns the names of earlier fields too", QUEUE),
    ],
    ("verl.experimental.reward_loop.reward_manager.naive", None): [
        (f"'{name}'", "a reward manager reads it of a row", PATCHES)
        for name in ("data_source", "reward_model", "extra_info", "tool_extra_fields", "__num_turns__")
    ],
    ("verl.utils.tracking", "FileLogger.__init__"): [
        ("os.getenv('VERL_FILE_LOGGER_PATH', None)", "reads VERL_FILE_LOGGER_PATH", FOLDER),
        ("self.fp = open(self.filepath, 'wb', buffering=0)", "holds an unbuffered file as fp, truncated", FOLDER),
    ],
    ("verl.utils.tracking", "Tracking.__init__"): [
        ("self.logger['file'] = FileLogger", "keeps the file logger as logger['file']", FOLDER),
    ],
    ("verl.utils.fsdp_utils", None): [
        ("f'{get_device_name()}:{device_id}'", "formats the current device behind a colon", CPU),
    ],
    ("verl.single_controller.ray.base", None): [("node_info.get('GPU', 0)", "counts GPUs and NPUs only", CPU)],
    (FSDP, "FSDPEngine._build_fsdp_module"): [
        ("if self.engine_config.offload_policy or self.engine_config.forward_only:", "offloads a reference", CPU),
        ("CPUOffloadPolicy(pin_memory=True)", "with pinned memory, which needs an accelerator", CPU),
    ],
    ("verl.utils.distributed", "initialize_global_process_group_ray"): [
        ("backend = backend or f'cpu:gloo,{get_device_name()}:{get_nccl_backend()}'", "names CPU and device", CPU),
    ],
    ("verl.third_party.vllm.__init__", None): [("package_name = 'vllm'", "looks up the version of `vllm`", CPU)],
    ("verl.workers.engine_workers", None): [
        ("is_master=", "the actor makes its weight transfer with is_master", TRANSFER),
        ("bucket_size=", "and bucket_size", TRANSFER),
    ],
}


@pytest.mark.parametrize("where", CODE, ids=lambda where: where[1] or where[0])
def test_code(where: tuple[str, str | None]) -> None:
    text = text_of(*where)
    for code, what, used_by in CODE[where]:
        holds(code in text, f"{where[1] or where[0]} holds {code!r}: {what}", used_by=used_by)


# (module, function) -> (calls in this order, what that says, who relies on it)
ORDER = {
    (BASE, "PPOTrainer.fit"): ("Tracking self.on_train_begin", "the logger is there when training begins", TRAINER),
    (BASE, "PPOTrainer._add_prompts_to_generate"): ("self._next_train_batch", "a refill fetches prompts", TRAINER),
    ("verl.workers.engine_workers", "ActorRolloutRefWorker.init_model"): (
        "self.actor.set_loss_fn",
        "verl sets its own loss before ours replaces it",
        TRAINER,
    ),
    ("verl.trainer.main_ppo", "main"): (
        "validate_config run_ppo",
        "a recipe is checked before anything starts",
        "verl_air/training/preflight",
    ),
    ("verl.trainer.main_ppo", "TaskRunnerV1.run"): (
        "get_trainer_cls trainer_cls",
        "trainers are looked up after the import that registers ours",
        "verl_air/plugin.py",
    ),
}


@pytest.mark.parametrize("where", ORDER, ids=lambda where: where[1])
def test_order_of_calls(where: tuple[str, str]) -> None:
    names, what, used_by = ORDER[where]
    calls = calls_in(function_in(source_of(where[0]), where[1]))
    places = [calls.index(name) if name in calls else -1 for name in names.split()]
    holds(-1 not in places and places == sorted(places), f"{where[1]} calls {names}: {what}", used_by=used_by)


def test_the_constructor_builds_the_buffer_after_reading_the_mode() -> None:
    text = text_of(BASE, "PPOTrainer.__init__")
    mode, build = "self.trainer_mode = ", "self._build_replay_buffer()"
    holds(0 < text.find(mode) < text.find(build), "_build_replay_buffer comes after the mode is read", used_by=TRAINER)


def test_weight_transfer_is_prepared_laid_out_and_then_joined() -> None:
    text = text_of(CHECKPOINTS, "CheckpointEngineManager.build_process_group")
    steps = [text.find(word) for word in ("'prepare'", "build_topology", "'init_process_group'")]
    holds(0 < steps[0] < steps[1] < steps[2], "a group is prepared, laid out, then joined", used_by=TRANSFER)
