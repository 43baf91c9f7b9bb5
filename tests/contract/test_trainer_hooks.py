"""``verl_air/training/trainer.py``: the methods of verl's ``PPOTrainer`` that we override, and when they are called."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from verl.single_controller.base.decorator import MAGIC_ATTR, Dispatch
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.workers.engine_workers import ActorRolloutRefWorker

from tests.contract.expect import calls_in, function_in, holds, source_of, takes, text_of

TRAINER = "verl_air/training/trainer.py"
BASE = "verl.trainer.ppo.v1.trainer_base"

SIGNATURES = {
    "__init__": ("config",),
    "_init_dataloader": (),
    "_next_train_batch": ("num_prompts",),
    "_fetch_one_gen_batch": (),
    "_add_prompts_to_generate": ("num_prompts",),
    "_build_replay_buffer": (),
    "on_init_end": (),
    "on_train_begin": (),
    "on_step_begin": (),
    "_compute_advantage": ("batch", "metrics"),
    "_val_metrics_update": (
        "data_sources",
        "sample_uids",
        "reward_extra_infos_dict",
        "sample_turns",
        "expected_acc_counts",
    ),
    "_dump_generations": ("inputs", "outputs", "gts", "scores", "reward_extra_infos_dict", "dump_path"),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    holds(hasattr(PPOTrainer, name), f"PPOTrainer has a method {name}", used_by=TRAINER)
    takes(getattr(PPOTrainer, name), *SIGNATURES[name], used_by=TRAINER)


def probe(recorded: list[str], *recording: str, **attributes: Any) -> PPOTrainer:
    """A trainer without a constructor: the methods named are recorded, all others are verl's own."""

    def record(name: str) -> Callable[..., Any]:
        def method(self: Any, batch: Any = None, *args: Any, **kwargs: Any) -> Any:
            recorded.append(name)
            return batch

        return method

    abstract = {name: record(name) for name in ("on_sample_end", "on_step_end")}
    cls = type("Probe", (PPOTrainer,), abstract | {name: record(name) for name in recording})
    trainer: PPOTrainer = object.__new__(cls)
    vars(trainer).update(attributes)
    return trainer


def test_the_loss_is_set_once_the_workers_are_there() -> None:
    recorded: list[str] = []
    probe(recorded, "_setup", "on_init_end").init()
    holds(
        recorded == ["_setup", "on_init_end"],
        "PPOTrainer.init runs _setup, which makes actor_rollout_wg, and then on_init_end",
        used_by=f"{TRAINER} (on_init_end)",
    )


def test_workers_take_a_new_loss() -> None:
    takes(ActorRolloutRefWorker.set_loss_fn, "loss_fn", used_by=f"{TRAINER} (on_init_end)")
    dispatch = getattr(ActorRolloutRefWorker.set_loss_fn, MAGIC_ATTR)["dispatch_mode"]
    holds(dispatch == Dispatch.ONE_TO_ALL, "set_loss_fn goes to every worker", used_by=f"{TRAINER} (on_init_end)")
    calls = calls_in(function_in(source_of("verl.workers.engine_workers"), "ActorRolloutRefWorker.init_model"))
    holds(
        "self.actor.set_loss_fn" in calls,
        "verl sets its own loss in init_model, before ours replaces it",
        used_by=f"{TRAINER} (on_init_end)",
    )


def test_advantages_come_after_balancing_and_before_the_update() -> None:
    """So our weights see the rows that the actor will see, padding included, and are there in time."""
    order = ["_balance_batch", "_compute_old_log_prob", "_compute_advantage", "_update_actor"]
    recorded: list[str] = []

    def sample(**kwargs: Any) -> tuple[Any, dict[str, float]]:
        recorded.append(f"sample {sorted(kwargs)}")
        return SimpleNamespace(extra_info={}), {}

    trainer = probe(
        recorded,
        *order,
        config=OmegaConf.create(
            {"actor_rollout_ref": {"rollout": {"temperature": 1.0}}, "trainer": {"critic_warmup": 0}}
        ),
        replay_buffer=SimpleNamespace(sample=sample),
        reward_loop_manager=SimpleNamespace(reward_loop_worker_handles=[]),
        use_reference_policy=False,
        use_critic=False,
        global_steps=1,
    )
    trainer._step_once({}, {}, 4)
    holds(
        recorded[0] == "sample ['batch_size', 'global_steps', 'partition_id']",
        "the trainer calls ReplayBuffer.sample with these keywords",
        used_by="verl_air/training/replay_buffer.py (sample)",
    )
    holds(
        [name for name in recorded if name in order] == order,
        f"a step runs {', '.join(order)} in this order; it ran {recorded}",
        used_by=f"{TRAINER} (_compute_advantage)",
    )


def test_prompts_are_fetched_named_and_joined() -> None:
    """verl gives each prompt a random uid; we overwrite the column after the chunks are joined."""
    rows = [{"raw_prompt": np.array([f"prompt {row}"], dtype=object)} for row in range(4)]
    trainer = probe(
        [],
        config=OmegaConf.create({"data": {"train_batch_size": 4, "gen_batch_size": 1}}),
        train_dataloader=rows,
        train_dataloader_it=None,
        global_steps=1,
    )
    batch = trainer._next_train_batch(4)
    used_by = f"{TRAINER} (_next_train_batch)"
    holds(len(batch) == 4, "_next_train_batch joins single fetches into one batch, in order", used_by=used_by)
    holds(
        [str(row) for row in batch["raw_prompt"]] == [f"prompt {row}" for row in range(4)],
        "order is kept",
        used_by=used_by,
    )
    holds(len(set(batch["uid"])) == 4, "each prompt has a uid of its own under `uid`", used_by=used_by)
    trainer.config.data.gen_batch_size = 2
    with pytest.raises(ValueError, match="multiple of gen_batch_size"):
        trainer._next_train_batch(3)


def test_a_refill_asks_the_trainer_for_prompts() -> None:
    calls = calls_in(function_in(source_of(BASE), "PPOTrainer._add_prompts_to_generate"))
    holds(
        calls[0] == "self._next_train_batch",
        "_add_prompts_to_generate, the replay buffer's refill_fn, fetches through _next_train_batch",
        used_by=f"{TRAINER} (_next_train_batch)",
    )


def test_refill_of_failed_groups_makes_verl_fetch_prompts_one_by_one() -> None:
    """We set ``sync_refill_failed_groups`` before verl's constructor reads it."""
    for method in ("PPOTrainer._init_dataloader", "PPOTrainer._build_replay_buffer"):
        holds(
            "'sync_refill_failed_groups'" in text_of(BASE, method),
            f"{method} reads trainer.v1.sampler.sync_refill_failed_groups",
            used_by=f"{TRAINER} (__init__)",
        )


def test_the_constructor_reads_the_mode_and_builds_the_buffer() -> None:
    text = text_of(BASE, "PPOTrainer.__init__")
    mode, build = "self.trainer_mode = self.config.trainer.v1.trainer_mode", "self._build_replay_buffer()"
    holds(mode in text, "the constructor reads trainer.v1.trainer_mode", used_by=f"{TRAINER} (__init__)")
    holds(
        build in text and text.index(mode) < text.index(build),
        "the constructor calls _build_replay_buffer after reading the mode",
        used_by=f"{TRAINER} (_build_replay_buffer)",
    )
    holds("self.parameter_sync_step" in text, "it sets parameter_sync_step", used_by=f"{TRAINER} (_count_steps)")


def test_verl_counts_steps_where_we_count_them_again() -> None:
    text = text_of(BASE, "PPOTrainer._init_dataloader")
    for name in ("self.steps_per_epoch", "self.total_training_steps", "self.train_dataset", "self.train_dataloader"):
        holds(f"{name} = " in text, f"_init_dataloader sets {name}", used_by=f"{TRAINER} (_init_dataloader)")
    holds(
        "config.actor_rollout_ref.actor.optim.total_training_steps" in text,
        "_init_dataloader hands total_training_steps to the actor's optimizer config",
        used_by=f"{TRAINER} (_count_steps)",
    )


def test_modes_are_compared_with_verls_own_names() -> None:
    """Why ``air_sync`` becomes ``sync`` again: any other name would get the asynchronous replay buffer."""
    text = text_of(BASE)
    holds(
        "ReplayBuffer if self.trainer_mode == 'sync' else ReplayBufferAsync" in text,
        "verl picks the replay buffer by comparing trainer_mode with 'sync'",
        used_by=f"{TRAINER} (__init__)",
    )


def test_stored_rollouts_name_their_rows_by_trajectory_key() -> None:
    text = text_of(BASE, "PPOTrainer._log_rollout_data")
    used_by = f"{TRAINER} (_dump_generations)"
    holds(
        "reward_extra_infos_dict = {'uid': [batch.keys[" in text,
        "training dumps hold keys under `uid`",
        used_by=used_by,
    )
    holds("dump_path=rollout_data_dir" in text, "and are told apart by their folder", used_by=used_by)
    text = text_of(BASE, "PPOTrainer._validate")
    holds("{'uid': dump_all_keys}" in text, "validation dumps hold keys under `uid`", used_by=used_by)


def test_the_data_set_can_be_read_by_column() -> None:
    """We read roles and intents from arrow, not row by row: the prompts themselves are never touched."""
    text = text_of("verl.utils.dataset.rl_dataset")
    holds(
        "self.dataframe: datasets.Dataset = datasets.concatenate_datasets(" in text
        or "self.dataframe = datasets.concatenate_datasets(" in text,
        "RLHFDataset.dataframe is a datasets.Dataset",
        used_by=f"{TRAINER} (_init_dataloader)",
    )
    assert callable(trainer_base.collate_fn)


def test_separate_async_still_needs_a_logger_that_can_flush() -> None:
    text = text_of("verl.trainer.ppo.v1.trainer_separate_async", "PPOTrainerSeparateAsync._setup")
    holds(
        "flush=True" in text,
        "trainer_separate_async logs with flush=True, which a logger refuses (mended: remove let_logger_flush)",
        used_by="verl_air/training/verl_mends.py",
    )


def test_the_logger_takes_flush() -> None:
    from verl.trainer.ppo.v1 import trainer_separate_async

    trainer_separate_async.logger.info("rollout by %s replicas", 1, flush=True)
