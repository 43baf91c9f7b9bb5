"""verl's trainers with one mixin: whole meta-groups in, a weight with each advantage, the auxiliary loss in the actor.

Importing this module registers the trainers that a recipe chooses with ``trainer.v1.trainer_mode``: ``air_sync``,
``air_colocate_async`` and ``air_separate_async``.

verl's hooks that are used (all of ``verl.trainer.ppo.v1.trainer_base.PPOTrainer``):

=============================  =======================================================================================
``_init_dataloader``           prompts come from :class:`~verl_air.training.sampler.MetaGroupSampler`
``_next_train_batch``          prompts are named by meta-group
``_build_replay_buffer``       rollouts leave the queue in whole meta-groups
``fit``, ``on_step_begin``     blocked workers end, failures are counted by step (:mod:`~verl_air.training.failures`)
``_load_checkpoint``           prompts that had failed in the queue run again
``on_init_end``                the actor's loss becomes :func:`~verl_air.training.actor_loss.air_actor_loss`
``_compute_reward_colocate``   a reward model on the policy's devices is given the rows that it scores
``_compute_old_log_prob``,     with ``air.old_log_probs=reuse`` the update's own log-probs serve
``_update_actor``              (:mod:`verl_air.training.log_probs`)
``_compute_advantage``         rows that may not take part are masked; weights are computed and stored
``_init_resource_pool_mgr``,   with ``air.consistency`` there is a reference worker, which reads the plain requests
``_compute_ref_log_prob``      (:mod:`verl_air.training.consistency`)
=============================  =======================================================================================

Those that concern what a run leaves to read are in :mod:`verl_air.training.records`.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf, open_dict
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.v1 import trainer_separate_async
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.dataset.rl_dataset import collate_fn
from verl.utils.import_utils import load_class_from_fqn

from verl_air.config import AirConfig
from verl_air.data.groups import build_group_index, intent_names
from verl_air.data.mixing import mix
from verl_air.errors import ConfigError, RewardError
from verl_air.rewards.blocked_loop import end_when_blocked
from verl_air.training import agent_loop, queue_io
from verl_air.training.actor_loss import air_actor_loss
from verl_air.training.batch import (
    FIELDS,
    Trajectories,
    auxiliary_reward,
    end_token_ids,
    loss_weights,
    read_trajectories,
)
from verl_air.training.consistency import ConsistencyTerm
from verl_air.training.failures import FailureGuard, reissue_failed
from verl_air.training.log_probs import ReusesLogProbs
from verl_air.training.metrics import judge_names, training_metrics
from verl_air.training.records import RunRecordsMixin
from verl_air.training.replay_buffer import whole_groups_class
from verl_air.training.rows import as_dict, new_group_uids, with_group_sizes
from verl_air.training.sampler import MetaGroupSampler, report_left_out
from verl_air.training.verl_patches import let_logger_flush, rows_for_rewards


class AirTrainerMixin(RunRecordsMixin, ReusesLogProbs, ConsistencyTerm):
    """What the three trainers below add to verl's.

    ``verl_mode`` is the mode of the verl trainer underneath. verl compares ``trainer_mode`` with its own names in many
    places, so the config's ``air_sync`` becomes ``sync`` again before verl's constructor reads it.
    """

    verl_mode: str

    def __init__(self, config: DictConfig) -> None:
        self.air = AirConfig.from_mapping(OmegaConf.to_container(config.air, resolve=True))
        self.recipe = copy.deepcopy(config)
        with open_dict(config):
            config.trainer.v1.trainer_mode = self.verl_mode
            if self.air.incomplete_groups == "refill":
                # Makes verl fetch prompts one by one, so that a replacement can be fetched exactly.
                config.trainer.v1.sampler.sync_refill_failed_groups = True
            agent = config.actor_rollout_ref.rollout.agent
            agent.agent_loop_manager_class = _noting_manager(agent.get("agent_loop_manager_class"))
        self.correction = self.leave_log_probs_to_update(config) if self.air.old_log_probs == "reuse" else None
        self.epochs: dict[str, float] = {}
        self.failures = FailureGuard(self.air, set_aside=lambda intent: self.sampler.set_aside.add(intent))
        super().__init__(config)

    # ---------------------------------------------------------------- prompts leave the data set in whole meta-groups

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        data = self.config.data
        visit = {"anchors": self.air.anchors_per_intent, "open_": self.air.open_per_intent}
        extra_info = self.train_dataset.dataframe.select_columns(["extra_info"]).with_format("arrow")[:]["extra_info"]
        columns = extra_info.combine_chunks().flatten()
        names = [field.name for field in extra_info.type]
        index = build_group_index(
            intent_names(columns[names.index("domain")], columns[names.index("intent_id")]),
            columns[names.index("role")],
            **visit,
            source="data.train_files",
            leave_out_incomplete=True,  # complete before verl's own filtering: the recipe's check has seen to it
        )
        report_left_out(index, data.train_batch_size // self.air.group_size, data.max_prompt_length)
        weights = self.air.domain_weights
        mixture = mix(weights, index, columns[names.index("extras")]) if weights else None
        self.sampler = MetaGroupSampler(
            index, **visit, shuffle=bool(data.shuffle), seed=int(data.get("seed") or 0), mixture=mixture
        )
        self.train_dataloader = StatefulDataLoader(
            dataset=self.train_dataset,
            batch_size=data.get("gen_batch_size", None) or data.train_batch_size,
            num_workers=data.dataloader_num_workers,
            drop_last=True,
            collate_fn=collate_fn,
            sampler=self.sampler,
        )
        self._count_steps(len(self.sampler))

    def _count_steps(self, prompts_per_epoch: int) -> None:
        """An epoch visits each intent once, whatever the rows it has; verl counted rows."""
        self.steps_per_epoch = prompts_per_epoch // self.config.data.train_batch_size
        if self.config.trainer.total_training_steps is not None:
            return
        self.total_training_steps = self.steps_per_epoch * self.config.trainer.total_epochs
        updates = self.total_training_steps * self.parameter_sync_step
        with open_dict(self.config):
            for section in ("actor_rollout_ref.actor.optim", "critic.optim"):
                if OmegaConf.select(self.config, section):
                    OmegaConf.update(self.config, f"{section}.total_training_steps", updates)

    def _next_train_batch(self, num_prompts: int | None = None) -> Any:
        size = self.air.group_size
        if num_prompts is not None:  # a refill asks for as many prompts as it lost; we hand out whole meta-groups
            num_prompts = math.ceil(num_prompts / size) * size
        batch = super()._next_train_batch(num_prompts)
        uids = [uid for _ in range(len(batch) // size) for uid in new_group_uids(size)]
        tu.assign_non_tensor_stack(batch, "uid", uids)
        self.epochs = self.sampler.epochs_after(len(batch) // size)
        return batch

    # ------------------------------------------------------------------ rollouts leave the queue in whole meta-groups

    def _build_replay_buffer(self) -> Any:
        buffer: Any = super()._build_replay_buffer()
        # verl chooses the class by mode and hands it a dozen settings; taking its choice and changing the class keeps
        # all of them. The mixin adds methods only, and the three attributes set here.
        buffer.__class__ = whole_groups_class(buffer.__class__)
        buffer.group_size = self.air.group_size
        buffer.evict_failed = self.verl_mode != "sync" or self.air.incomplete_groups == "refill"
        buffer.on_validation_batch = self._remember_validation_rows
        buffer.failures = self.failures
        return buffer

    # --------------------------------------------------------------------------------------------- what fails, and when

    def fit(self, agent_loop_manager: Any) -> None:
        """Train; a reward worker whose event loop is blocked ends."""
        ray.get(
            [worker.__ray_call__.remote(end_when_blocked) for worker in self.reward_loop_manager.reward_loop_workers]
        )
        super().fit(agent_loop_manager)

    def on_step_begin(self) -> None:
        """Count failures under this step."""
        self.failures.begin_step()
        super().on_step_begin()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        reissue_failed()

    # -------------------------------------------------------------------------------- the loss and what it is fed with

    def on_init_end(self) -> None:
        """Give the actor its loss. Without an auxiliary term verl's loss stays."""
        if self.air.active or self.air.consistency or self.correction is not None:
            actor_config = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
            loss = partial(air_actor_loss, config=actor_config, air=self.air, correction=self.correction)
            self.actor_rollout_wg.set_loss_fn(loss)
        super().on_init_end()

    def _compute_reward_colocate(self, batch: Any, metrics: dict | None = None) -> Any:
        with rows_for_rewards(self, batch):
            return super()._compute_reward_colocate(batch, metrics)

    def _compute_advantage(self, batch: Any, metrics: dict) -> Any:
        rows = self._read_trajectories(batch)
        self.failures.check_abstentions(rows)
        incomplete_N = rows.incomplete_groups_N(self.air.group_size, self.config.actor_rollout_ref.rollout.n)
        incomplete = len(set(rows.group_N[incomplete_N]))
        masked_N = rows.abstained_N if self.air.incomplete_groups == "no_air" else rows.abstained_N | incomplete_N
        valid_N = ~rows.padding_N & ~masked_N
        weighted_N = valid_N & ~incomplete_N  # an incomplete meta-group never has a trustworthy gap
        if not valid_N.any():
            raise RewardError(
                f"step {self.global_steps}: nothing is left to train on: rollouts failed in {incomplete} "
                f"meta-group(s) and {int(rows.abstained_N.sum())} row(s) were abstained. "
                f"{self.failures.first_causes()}. "
                "The reward workers logged why they abstained."
            )
        if self.air.active:
            weight_N = loss_weights(rows, weighted_N, self.air)
            queue_io.put_weights(batch, rows, weight_N)
            self.training_rows.note(batch.keys, air_weight=weight_N)
        if self.air.consistency:
            metrics |= self.put_consistency(batch, rows, weighted_N)
        queue_io.mask_rows(batch, rows, masked_N)
        batch = super()._compute_advantage(batch, metrics)
        queue_io.clear_advantages(batch, rows, rows.lone_N(valid_N))
        aux_N, judges = auxiliary_reward(rows, self.air) if self.air.active else None, judge_names(self.config)
        metrics |= training_metrics(rows, valid_N, incomplete, aux_reward_N=aux_N, weighted_N=weighted_N, judges=judges)
        metrics.update({f"air/epoch/{name}": epochs for name, epochs in self.epochs.items()})
        return batch

    def _read_trajectories(self, batch: Any) -> Trajectories:
        data = queue_io.read(batch, *FIELDS)
        rows = read_trajectories(
            batch.keys,
            batch.tags,
            data,
            max_response_length=self.config.data.max_response_length,
            eos_token_ids=end_token_ids(self.tokenizer, self.config.actor_rollout_ref.model.path),
        )
        size = self.air.group_size * self.config.actor_rollout_ref.rollout.n
        infos = [as_dict(info) for info in data["extra_info"]]
        self.training_rows.add(batch.keys, with_group_sizes(batch.keys, infos, rows.padding_N, size))
        self.training_rows.note(batch.keys, **rows.info_N, padding=rows.padding_N)
        return rows


def _noting_manager(name: str | None) -> str:
    """The agent-loop manager to use, given the recipe's.

    Raises:
        ConfigError: the recipe's is not a subclass of ours.
    """
    if name and not issubclass(load_class_from_fqn(name, "AgentLoopManager"), agent_loop.NotingAgentLoopManager):
        raise ConfigError(
            f"actor_rollout_ref.rollout.agent.agent_loop_manager_class={name} would hide the mistakes that rollouts "
            f"meet: derive it from {agent_loop.MANAGER}"
        )
    return name or agent_loop.MANAGER


let_logger_flush(trainer_separate_async)


@register_trainer("air_sync")
class AirTrainerSync(AirTrainerMixin, PPOTrainerSync):
    """Rollout and training take turns on the same devices."""

    verl_mode = "sync"


@register_trainer("air_colocate_async")
class AirTrainerColocateAsync(AirTrainerMixin, PPOTrainerColocateAsync):
    """The same devices, with rollouts that may span several versions of the policy."""

    verl_mode = "colocate_async"


@register_trainer("air_separate_async")
class AirTrainerSeparateAsync(AirTrainerMixin, PPOTrainerSeparateAsync):
    """Rollout and training on devices of their own."""

    verl_mode = "separate_async"


TRAINERS = {cls.verl_mode: cls for cls in (AirTrainerSync, AirTrainerColocateAsync, AirTrainerSeparateAsync)}
