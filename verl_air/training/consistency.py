"""``air.consistency``: an open variant is answered as the frozen initial policy answers the plain request.

On-policy consistency training (arXiv 2605.21834) minimises the reverse KL between the policy, given an open variant,
and the initial policy, given the plain request, on the policy's own responses. verl's reference worker gives the
second: it reads a batch of its own, with the prompts exchanged. The first is ``old_log_probs``, which verl has.
The credit is immediate (``objective.consistency_weight``): no token is blamed for where the response goes after it.

verl's hooks (``PPOTrainer``): ``_init_resource_pool_mgr``, so that the reference worker exists without a KL option;
``_compute_ref_log_prob``, so that it then makes no pass over the batch's own prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import open_dict
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from verl_air.config import AirConfig
from verl_air.data.framings import plain_prompt
from verl_air.errors import DataError
from verl_air.objective import consistency_weight
from verl_air.training import queue_io
from verl_air.training.actor_loss import CONSISTENCY_FIELD
from verl_air.training.batch import Trajectories
from verl_air.training.rows import as_dict

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer as _Base
else:
    _Base = object


class ConsistencyTerm(_Base):
    """What the trainer does for the term. Nothing where ``air.consistency`` is zero."""

    air: AirConfig
    use_reference_policy: bool
    plain_pass: bool
    """Whether verl's own KL terms need the reference policy on the batch's own prompts."""

    def _init_resource_pool_mgr(self) -> None:
        self.plain_pass = bool(self.use_reference_policy)
        if self.plain_pass or not self.air.consistency:
            super()._init_resource_pool_mgr()
            return
        self.use_reference_policy, actor = True, self.config.actor_rollout_ref.actor
        with open_dict(actor):
            actor.use_kl_loss = True  # verl asks this key whether there is a reference worker
            try:
                super()._init_resource_pool_mgr()
            finally:
                actor.use_kl_loss = False

    def _compute_ref_log_prob(self, batch: Any, metrics: dict) -> Any:
        return super()._compute_ref_log_prob(batch, metrics) if self.plain_pass else batch

    def put_consistency(self, batch: Any, rows: Trajectories, weighted_N: np.ndarray) -> dict[str, float]:
        """Store the term's weight of each response token; returns its metrics.

        Raises:
            DataError: an open row does not say what the plain request is.
        """
        data = queue_io.read(batch, "raw_prompt", "extra_info", "responses", "response_mask", "old_log_probs")
        weights = [torch.zeros(int(length)) for length in rows.length_N]
        taken, prompts = [], []
        for row in np.flatnonzero(weighted_N & ~rows.is_anchor_N):
            messages = list(getattr(data["raw_prompt"][row], "data", data["raw_prompt"][row]))
            if plain := _plain(messages, as_dict(data["extra_info"][row]), rows.keys[row]):
                taken.append(row)
                prompts.append(self._tokens(plain))
        kl_M = []
        if taken:
            names = ("responses", "response_mask", "old_log_probs")
            columns = (data[name].unbind() for name in names)
            responses, masks, log_probs = ([column[row] for row in taken] for column in columns)
            plain_log_probs = self._plain_log_probs(prompts, responses)
            scale = len(rows.keys) / max(self._counted(rows, weighted_N), 1)
            for row, mask, own_T, plain_T in zip(taken, masks, log_probs, plain_log_probs, strict=True):
                weight_T = consistency_weight(own_T.float(), plain_T.float()) * mask
                weights[row] = weight_T * scale
                kl_M.append(-float(weight_T.sum()))
        queue_io.put_tokens(batch, {CONSISTENCY_FIELD: weights})
        found = {"air/consistency/rows": float(len(taken))}
        return found | ({"air/consistency/kl": float(np.mean(kl_M))} if kl_M else {})

    def _counted(self, rows: Trajectories, weighted_N: np.ndarray) -> int:
        """Rows that the term is averaged over, as the auxiliary loss is."""
        return int((weighted_N & ~rows.is_anchor_N).sum() if self.air.normalize_by == "open" else weighted_N.sum())

    def _tokens(self, messages: Sequence[Mapping[str, str]]) -> Tensor:
        """A prompt as verl's agent loop tokenizes it."""
        kwargs = self.config.data.get("apply_chat_template_kwargs", {})
        ids = self.tokenizer.apply_chat_template(
            list(messages), tokenize=True, add_generation_prompt=True, return_dict=False, **kwargs
        )
        return torch.tensor(ids, dtype=torch.int64)

    def _plain_log_probs(self, prompts: list[Tensor], responses: list[Tensor]) -> list[Tensor]:
        """Log-probs of each response's tokens under the initial policy, given another prompt."""
        ranks = self.config.trainer.n_gpus_per_node * self.config.trainer.nnodes
        limit = self.config.actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu
        total, micro_batch = even_split(len(prompts), ranks, limit)
        missing = total - len(prompts)
        second = exchanged(prompts + prompts[:1] * missing, responses + responses[:1] * missing)
        tu.assign_non_tensor(
            second,
            calculate_entropy=False,
            compute_loss=False,
            temperature=self.config.actor_rollout_ref.rollout.temperature,
            micro_batch_size_per_gpu=micro_batch,  # ignored where verl packs micro-batches by tokens
        )
        output = self.ref_policy_wg.compute_ref_log_prob(second)
        found = response_from_nested(output["log_probs"], second["response_mask"]).unbind()
        return list(found[: len(prompts)])


def even_split(rows: int, ranks: int, limit: int | None) -> tuple[int, int]:
    """Rows to send and rows of a micro-batch: verl divides rows evenly over ranks, and a rank's over micro-batches.

    ranks: at least as many as get rows of their own, and a multiple of those. limit: of a micro-batch, None for none.
    """
    per_rank = -(-rows // ranks)
    batches = -(-per_rank // (limit or per_rank))
    micro_batch = -(-per_rank // batches)
    return ranks * batches * micro_batch, micro_batch


def exchanged(prompts: Sequence[Tensor], responses: Sequence[Tensor]) -> TensorDict:
    """Rows of these prompts and responses as verl's workers read them: ids, positions and masks of their own."""
    texts = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]

    def nested(values: Sequence[Tensor]) -> Tensor:
        return torch.nested.as_nested_tensor(list(values), layout=torch.jagged)

    mask = nested([torch.ones_like(response) for response in responses])
    return TensorDict(
        {
            "input_ids": nested(texts),
            "position_ids": nested([torch.arange(len(text)) for text in texts]),
            "prompts": nested(prompts),
            "responses": nested(responses),
            "response_mask": mask,
            "loss_mask": mask,
        },
        batch_size=len(texts),
    )


def _plain(messages: list[Any], info: Mapping[str, Any], key: str) -> list[Any] | None:
    """The plain request of an open row, or None where the row asks it already."""
    plain = plain_prompt(messages, info.get("extras") or "{}")
    if plain is None:
        raise DataError(
            f"trajectory {key} (intent {info.get('intent_id')!r}, {info.get('context')!r}): air.consistency needs the "
            "plain request of each open row: extra_info.extras must have `request`, or `plain_prompt`"
        )
    return None if plain == messages else plain
