"""The trainers that a recipe chooses with ``trainer.v1.trainer_mode``, registered by importing this module."""

from __future__ import annotations

from verl.trainer.ppo.v1 import trainer_separate_async
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_air.training.trainer import AirTrainerMixin
from verl_air.training.verl_mends import let_logger_flush

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
