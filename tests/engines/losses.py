"""The losses that a case can ask for by name: ours, verl's own, and ours with a fault put in on purpose.

Imported on the ranks only: it imports verl.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from tests.engines.training import CORRECTION
from verl_air.config import AirConfig
from verl_air.objective import surrogate_loss
from verl_air.training.actor_loss import WEIGHT_FIELD, air_actor_loss


def stock(config: Any, model_output: Any, data: Any, dp_group: Any = None, *, air: AirConfig) -> Any:
    """verl's own, untouched."""
    return ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)


def per_micro_batch(config: Any, model_output: Any, data: Any, dp_group: Any = None, *, air: AirConfig) -> Any:
    """FAULT: averages over the rows of the micro-batch instead of those of the mini-batch."""
    return _faulty(config, model_output, data, dp_group, air, rows=len(data))


def per_mini_batch_of_all_ranks(
    config: Any, model_output: Any, data: Any, dp_group: Any = None, *, air: AirConfig
) -> Any:
    """FAULT: forgets that engines average gradients over data-parallel ranks."""
    return _faulty(config, model_output, data, dp_group, air, rows=data["global_batch_size"])


def _faulty(config: Any, model_output: Any, data: Any, dp_group: Any, air: AirConfig, rows: float) -> Any:
    loss, metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
    padded = data.select(WEIGHT_FIELD, "response_mask").to_padded_tensor()
    log_prob_NT = no_padding_2_padding(model_output["log_probs"], data)
    aux = surrogate_loss(log_prob_NT, padded[WEIGHT_FIELD], padded["response_mask"], num_trajectories=rows)
    return loss + air.coef * aux, metrics


LOSSES = {
    "air": air_actor_loss,
    "recomputed": air_actor_loss,
    "reused": partial(air_actor_loss, correction=CORRECTION),
    "stock": stock,
    "per_micro_batch": per_micro_batch,
    "per_mini_batch_of_all_ranks": per_mini_batch_of_all_ranks,
}
