"""The actor's loss: verl's own ``ppo_loss`` plus ``coef * J_aux``, plus ``consistency`` times its own sum.

The same function runs in verl's FSDP and Megatron workers. It is set with ``actor_rollout_wg.set_loss_fn`` and called
once per micro-batch; on Megatron only on the last pipeline stage, and alike on all tensor- and context-parallel ranks.
It uses the log-probs that the policy loss uses: no second forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from verl_air.config import AirConfig
from verl_air.objective import importance_ratio, surrogate_loss
from verl_air.training.log_probs import use_own_log_probs

WEIGHT_FIELD = "air_weight"
"""The batch's column of trajectory weights, repeated over response tokens and nested like ``advantages``."""

CONSISTENCY_FIELD = "consistency_weight"
"""The same of ``air.consistency`` (:mod:`verl_air.training.consistency`), a weight for each response token."""


def air_actor_loss(
    config: Any,
    model_output: dict[str, torch.Tensor],
    data: TensorDict,
    dp_group: Any = None,
    *,
    air: AirConfig,
    correction: Mapping[str, Any] | None = None,
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
        correction: with ``air.old_log_probs=reuse`` the settings of verl's rollout correction, else None.
    """
    own_metrics: dict[str, float] = {}
    if correction is not None:
        data, own_metrics = use_own_log_probs(model_output, data, correction)
        if "entropy" in model_output and config.entropy_coeff == 0:  # for a metric only: nothing to differentiate
            model_output = {**model_output, "entropy": model_output["entropy"].detach()}
    loss, metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
    metrics.update(own_metrics)
    terms = {"air_loss": (air.coef if air.active else 0.0, WEIGHT_FIELD)}
    terms["consistency_loss"] = (air.consistency, CONSISTENCY_FIELD)
    for name, (coef, field) in terms.items():
        if coef:
            aux, ratio_metrics = auxiliary_loss(config, model_output, data, air, field)
            metrics |= {name: Metric(value=aux, aggregation=AggregationType.SUM), **ratio_metrics}
            loss = loss + coef * aux
    return loss, metrics


def auxiliary_loss(
    config: Any, model_output: dict[str, torch.Tensor], data: TensorDict, air: AirConfig, field: str = WEIGHT_FIELD
) -> tuple[torch.Tensor, dict[str, float]]:
    """J_aux of one micro-batch, with the weights of a column; and metrics.

    It is on verl's scale: divided by a data-parallel rank's share of the mini-batch.

    With ``air.importance=ratio`` it is corrected by what the policy loss is corrected by: ``old_log_probs``, which are
    the rollout's own in verl's bypass mode, and ``rollout_is_weights``, where the recipe asks verl for them.
    """
    log_prob_NT = no_padding_2_padding(model_output["log_probs"], data)
    fields = ("response_mask", field, "old_log_probs", "rollout_is_weights")
    padded = data.select(*(name for name in fields if name in data)).to_padded_tensor()
    mask_NT, ratio_NT, metrics = padded["response_mask"], None, {}
    if air.importance == "ratio":
        columns = (log_prob_NT, padded["old_log_probs"], padded.get("rollout_is_weights", None))
        ratio_NT = importance_ratio(*columns, max_ratio=air.importance_clip)
        metrics = _ratio_metrics(importance_ratio(*columns, max_ratio=math.inf), ratio_NT, mask_NT.bool())
    # Scalars may come wrapped; the mini-batch's size counts padding rows, which batch.loss_weights has allowed for.
    dp_size = tu.unwrap_non_tensor_data(config.global_batch_info["dp_size"])
    batch_size = tu.unwrap_non_tensor_data(config.global_batch_info["global_batch_size"])
    num_trajectories = batch_size / dp_size
    aux = surrogate_loss(log_prob_NT, padded[field], mask_NT, num_trajectories=num_trajectories, ratio_NT=ratio_NT)
    return aux, metrics


def _ratio_metrics(raw_NT: torch.Tensor, ratio_NT: torch.Tensor, mask_NT: torch.Tensor) -> dict[str, float]:
    """How the ratio is distributed over response tokens. verl reduces plain numbers by name: mean, max or min.

    They are no ``Metric``, of which every micro-batch would need one: one without a token has nothing to report.
    """
    if not mask_NT.any():
        return {}
    raw_M, ratio_M = raw_NT[mask_NT], ratio_NT[mask_NT]
    found = {
        "mean": ratio_M.mean(),
        "max": ratio_M.max(),
        "min": ratio_M.min(),
        "clipped": (ratio_M < raw_M).float().mean(),
        "effective": ratio_M.mean() ** 2 / (ratio_M**2).mean().clamp(min=1e-30),
    }
    return {f"air_ratio/{name}": value.item() for name, value in found.items()}
