"""``verl_air/training/trainer.py``: the methods of verl's ``PPOTrainer`` that we override, and when they are called."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from verl.single_controller.base.decorator import MAGIC_ATTR, Dispatch
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.workers.engine_workers import ActorRolloutRefWorker

from tests.contract.expect import holds

TRAINER = "verl_air/training/trainer.py"
BASE = "verl.trainer.ppo.v1.trainer_base"


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
    what = "PPOTrainer.init runs _setup, which makes actor_rollout_wg, and then on_init_end"
    holds(recorded == ["_setup", "on_init_end"], what, used_by=f"{TRAINER} (on_init_end)")
    dispatch = getattr(ActorRolloutRefWorker.set_loss_fn, MAGIC_ATTR)["dispatch_mode"]
    holds(dispatch == Dispatch.ONE_TO_ALL, "set_loss_fn goes to every worker", used_by=f"{TRAINER} (on_init_end)")


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
    keywords, ran = recorded[0], [name for name in recorded if name in order]
    right = keywords == "sample ['batch_size', 'global_steps', 'partition_id']"
    used_by = "verl_air/training/replay_buffer.py (sample)"
    holds(right, "the trainer calls ReplayBuffer.sample with these keywords", used_by=used_by)
    what = f"a step runs {', '.join(order)} in this order; it ran {recorded}"
    holds(ran == order, what, used_by=f"{TRAINER} (_compute_advantage)")


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
    in_order = [str(row) for row in batch["raw_prompt"]] == [f"prompt {row}" for row in range(4)]
    holds(in_order, "order is kept", used_by=used_by)
    holds(len(set(batch["uid"])) == 4, "each prompt has a uid of its own under `uid`", used_by=used_by)
    trainer.config.data.gen_batch_size = 2
    with pytest.raises(ValueError, match="multiple of gen_batch_size"):
        trainer._next_train_batch(3)


def test_the_logger_takes_flush() -> None:
    from verl.trainer.ppo.v1 import trainer_separate_async

    trainer_separate_async.logger.info("rollout by %s replicas", 1, flush=True)
