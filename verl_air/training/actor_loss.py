"""The actor's loss: verl's own ``ppo_loss`` plus ``coef * J_aux``.

The same function runs in verl's FSDP and Megatron workers. It is set with ``actor_rollout_wg.set_loss_fn`` and called
once per micro-batch; on Megatron only on the last pipeline stage, and alike on all tensor- and context-parallel ranks.
It uses the log-probs that the policy loss uses: no second forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from verl_air.config import AirConfig
from verl_air.objective import surrogate_loss

WEIGHT_FIELD = "air_weight"
"""The batch's column of trajectory weights, repeated over response tokens and nested like ``advantages``."""


def air_actor_loss(
    config: Any, model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any = None, *, air: AirConfig
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Policy loss of one micro-batch with the auxiliary term, and metrics, which appear as ``actor/<name>``.

    It is scaled as verl scales its own, so that the engines' averaging over micro-batches and data-parallel ranks gives
    the gradient of the mini-batch.

    Args:
        config: verl's ``ActorConfig``; ``ppo_loss`` fills its ``global_batch_info``.
        model_output: ``log_probs``, jagged [bsz, prompt + response], and ``entropy`` where asked for.
        data: the micro-batch, with ``air_weight``.
        dp_group: passed on to verl.
        air: the options.
    """
    loss, metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
    aux = auxiliary_loss(config, model_output, data, air)
    metrics["air_loss"] = Metric(value=aux, aggregation=AggregationType.SUM)
    return loss + air.coef * aux, metrics


def auxiliary_loss(
    config: Any, model_output: dict[str, torch.Tensor], data: TensorDict, air: AirConfig
) -> torch.Tensor:
    """J_aux of one micro-batch, on verl's scale: divided by a data-parallel rank's share of the mini-batch."""
    fields = ["response_mask", WEIGHT_FIELD] + (["old_log_probs"] if air.importance == "ratio" else [])
    padded = data.select(*fields).to_padded_tensor()
    # Scalars may come wrapped; the mini-batch's size counts padding rows, which batch.loss_weights has allowed for.
    dp_size = tu.unwrap_non_tensor_data(config.global_batch_info["dp_size"])
    batch_size = tu.unwrap_non_tensor_data(config.global_batch_info["global_batch_size"])
    return surrogate_loss(
        no_padding_2_padding(model_output["log_probs"], data),
        padded[WEIGHT_FIELD],
        padded["response_mask"],
        num_trajectories=batch_size / dp_size,
        old_log_prob_NT=padded["old_log_probs"] if air.importance == "ratio" else None,
        max_ratio=air.importance_clip,
    )
