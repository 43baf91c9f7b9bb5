"""What a run leaves to read, as a mixin of verl's trainers: its record, metrics, rollouts and best checkpoint."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from verl_air.config import AirConfig
from verl_air.errors import CheckpointError
from verl_air.training import queue_io
from verl_air.training.best_checkpoint import BestCheckpoint
from verl_air.training.metrics import validation_metrics, without_constants
from verl_air.training.rows import RowIdentities, ValidationIntents, as_dict
from verl_air.training.run_folder import put_metrics_back, set_metrics_aside, write_run_record

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer as _Base
else:
    _Base = object


class RunRecordsMixin(_Base):
    """``training_rows`` is filled by who reads the training batches, ``validation_rows`` by the replay buffer.

    air, recipe: set before this constructor runs; ``recipe`` is the config as the user wrote it.
    """

    air: AirConfig
    recipe: DictConfig

    def __init__(self, config: DictConfig) -> None:
        self.validation_rows = RowIdentities()
        self.training_rows = RowIdentities()
        super().__init__(config)

    def on_init_end(self) -> None:
        """Read what validation needs."""
        self.validation_intents = ValidationIntents.read(self.val_dataset.data_files)
        folder, metric = self.config.trainer.default_local_dir, self.air.best_metric
        self.best_checkpoint = BestCheckpoint(folder, metric, resumed=self.global_steps) if metric else None
        super().on_init_end()

    def fit(self, agent_loop_manager: Any) -> None:
        """Save earlier metrics from verl's file logger, which opens its file anew."""
        self.earlier_metrics = set_metrics_aside(self.config)
        super().fit(agent_loop_manager)

    def on_train_begin(self) -> None:
        """Leave a record of what is being run, and put back what it had measured before."""
        write_run_record(self.recipe, self.config.trainer.default_local_dir)
        put_metrics_back(self.earlier_metrics, self.logger.logger.get("file"), before_step=self.global_steps)
        super().on_train_begin()

    def on_step_begin(self) -> None:
        """Forget the rows of the previous step."""
        self.training_rows.clear()
        super().on_step_begin()

    def _remember_validation_rows(self, batch: Any) -> None:
        infos = [as_dict(info) for info in queue_io.read(batch, "extra_info")["extra_info"]]
        completions = self.config.actor_rollout_ref.rollout.val_kwargs.n
        self.validation_rows.add(
            batch.keys, [{**info, **self.validation_intents.sizes(info, completions)} for info in infos]
        )

    def _val_metrics_update(
        self, data_sources: list, sample_uids: list, reward_extra_infos_dict: dict, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        watched = without_constants(reward_extra_infos_dict)
        metrics = super()._val_metrics_update(data_sources, sample_uids, watched, *args, **kwargs)
        identities, intents = self.validation_rows.of(sample_uids), self.validation_intents.intents
        metrics.update(validation_metrics(identities, data_sources, reward_extra_infos_dict, intents))
        self.validation_rows.clear()
        if self.best_checkpoint:
            self.best_checkpoint.consider(self.global_steps, metrics)
        return metrics

    def _save_checkpoint(self) -> None:
        if self.best_checkpoint:
            self.best_checkpoint.before_save(self.global_steps)
        try:
            super()._save_checkpoint()
        except Exception as error:  # of a full disk torch says "unexpected pos"
            folder = self.config.trainer.default_local_dir
            free = shutil.disk_usage(folder).free >> 20
            raise CheckpointError(
                f"the checkpoint of step {self.global_steps} could not be written to {folder}, which has {free} MiB "
                "free. Make room, or correct what the error above names, and resume from the last whole checkpoint."
            ) from error
        if self.best_checkpoint:
            self.best_checkpoint.saved_step = self.global_steps

    def _dump_generations(
        self,
        inputs: list,
        outputs: list,
        gts: list,
        scores: list,
        reward_extra_infos_dict: dict[str, list],
        dump_path: str,
    ) -> None:
        keys = reward_extra_infos_dict["uid"]
        rows = self.training_rows if dump_path == self.config.trainer.get("rollout_data_dir") else self.validation_rows
        columns = {**reward_extra_infos_dict, **rows.columns(keys)}
        super()._dump_generations(inputs, outputs, gts, scores, columns, dump_path)
