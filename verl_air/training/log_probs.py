"""``air.old_log_probs=reuse``: no forward pass before the update, where the update's own log-probs are the same.

In a step of one on-policy update, verl would recompute ``old_log_probs`` with the weights of the update's own forward
pass. So the loss takes its log-probs, detached, for the old ones: the ratio is 1 and the gradient the same.
What verl computes from old log-probs before the update is computed in the loss, by verl's own functions, per
micro-batch: rollout correction (weights and rejection mask) and the metrics of rollout against actor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_rejection_mask
from verl.utils.debug.metrics import calculate_debug_metrics
from verl.workers.utils.padding import no_padding_2_padding, response_to_nested

from verl_air.errors import ConfigError

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer as _Base
else:
    _Base = object

CORRECTION_KEYS = ("rollout_is", "rollout_is_threshold", "rollout_rs", "rollout_rs_threshold")

PREFIXES = ("actor/rollout_corr/", "actor/training/")
"""verl logs these without ``actor/``, which every metric of a loss is given."""


def use_own_log_probs(
    model_output: dict[str, torch.Tensor], data: TensorDict, correction: Mapping[str, Any]
) -> tuple[TensorDict, dict[str, float]]:
    """The micro-batch as verl would have prepared it with recomputed log-probs, and the metrics of doing so.

    Args:
        model_output: of the update's forward pass.
        data: the micro-batch, without ``old_log_probs``.
        correction: ``CORRECTION_KEYS`` of ``algorithm.rollout_correction``; used if there are ``rollout_log_probs``.
    """
    log_prob_NT = no_padding_2_padding(model_output["log_probs"], data).detach()
    data, mask = data.copy(), data["response_mask"]
    data["old_log_probs"] = response_to_nested(log_prob_NT, mask)
    mask_NT = mask.to_padded_tensor(0)
    if "rollout_log_probs" not in data or not mask_NT.any():
        return data, {}
    rollout_NT = data["rollout_log_probs"].to_padded_tensor(0.0)
    columns = {"old_log_probs": log_prob_NT, "rollout_log_probs": rollout_NT, "response_mask": mask_NT}
    metrics = calculate_debug_metrics(DataProto.from_dict({**columns, "responses": mask_NT}))
    weights, kept_NT, found = compute_rollout_correction_and_rejection_mask(
        old_log_prob=log_prob_NT, rollout_log_prob=rollout_NT, response_mask=mask_NT, **correction
    )
    if weights is not None:
        data["rollout_is_weights"] = response_to_nested(weights.batch["rollout_is_weights"], mask)
    data["response_mask"] = response_to_nested(kept_NT, mask)
    return data, {**metrics, **found}


class ReusesLogProbs(_Base):
    """What the trainer does otherwise. ``correction`` is None where log-probs are recomputed."""

    correction: Mapping[str, Any] | None

    def leave_log_probs_to_update(self, config: DictConfig) -> Mapping[str, Any]:
        """Have verl skip the correction that it would make before the update; returns the settings of it.

        verl's bypass mode does that. Entropy is logged from the pass that is left out, so the update computes it.
        """
        with open_dict(config):
            config.actor_rollout_ref.actor.calculate_entropy = True
            correction = OmegaConf.to_container(config.algorithm.get("rollout_correction", None) or {}, resolve=True)
            OmegaConf.update(config, "algorithm.rollout_correction.bypass_mode", True, force_add=True)
        assert isinstance(correction, dict)
        return {key: correction[key] for key in CORRECTION_KEYS if key in correction}

    def _compute_old_log_prob(self, batch: Any, metrics: dict) -> Any:
        return batch if self.correction is not None else super()._compute_old_log_prob(batch, metrics)

    def _update_actor(self, batch: Any, metrics: dict) -> Any:
        if self.correction is None:
            return super()._update_actor(batch, metrics)
        actor = self.config.actor_rollout_ref.actor
        rows = int(actor.ppo_mini_batch_size) * int(self.config.actor_rollout_ref.rollout.n)
        if len(batch) != rows:
            raise ConfigError(
                f"step {self.global_steps} has {len(batch)} rows for updates of {rows}: more than one update, of which "
                "the later ones are off-policy. Set air.old_log_probs=recompute."
            )
        batch = super()._update_actor(batch, metrics)
        for name in [name for name in metrics if name.startswith(PREFIXES)]:
            metrics[name.removeprefix("actor/")] = metrics.pop(name)
        # verl's entropy of the step, under the name that it has where the update computes it too.
        metrics["actor/entropy"] = metrics["actor/entropy_loss"]
        return batch
