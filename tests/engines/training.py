"""One training step of verl's own ``TrainingWorker`` on a rank, with the gradients that its optimizer was given.

The way in is the trainer's: columns of nested tensors, the extra information of ``PPOTrainer._update_actor``, and
``train_mini_batch``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from unittest.mock import Mock

import torch
from torch import Tensor

from tests.engines.batch import Batch, driver_weights
from verl_air.config import AirConfig

if TYPE_CHECKING:
    from tensordict import TensorDict

Gradients = dict[str, Tensor]

AIR = AirConfig(coef=0.05, estimator="paper", gap="signed")
"""Policy loss and auxiliary loss then weigh about alike on the tiny model, so that a fault in either shows."""


class Backend(Protocol):
    """What differs between verl's engines. Instances are sent to the ranks.

    strategy: verl's name of the engine.
    configs: verl's engine and optimizer config.
    gradients, parameters: whole ones by Hugging Face name, gradients before clipping; collective calls.
    place: the position of this rank in each parallel dimension.
    """

    @property
    def strategy(self) -> str: ...
    def prepare(self) -> None: ...
    def configs(self, job: Job) -> tuple[Any, Any]: ...
    def gradients(self, engine: Any) -> Gradients: ...
    def parameters(self, engine: Any) -> Gradients: ...
    def place(self, engine: Any) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Job:
    """A case.

    model: folder.
    loss: a name of ``losses.LOSSES``.
    micro_batch: rows; with ``max_tokens`` verl packs micro-batches by tokens instead.
    mini_batch: rows over all ranks, the whole batch by default.
    lora_rank: of adapters on all linear layers, with a scale of 2; 0 trains the model itself.
    learning_rate: 0 leaves the policy as it is, so that the gradients of all mini-batches are those of one policy.
    """

    model: str
    batch: Batch
    backend: Backend
    loss: str = "air"
    air: AirConfig = AIR
    loss_mode: str = "vanilla"
    loss_agg_mode: str = "token-mean"
    micro_batch: int = 2
    max_tokens: int | None = None
    mini_batch: int | None = None
    steps: int = 1
    learning_rate: float = 0.0
    lora_rank: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a rank reports. gradients: one entry per optimizer step; they and parameters are rank 0's alone."""

    gradients: list[Gradients]
    parameters: Gradients
    metrics: list[dict[str, Any]]
    loss_calls: int
    place: dict[str, Any]


def make_worker(job: Job) -> Any:
    """verl's ``TrainingWorker``, ready to train; the process group must be up."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import HFModelConfig, TrainingWorkerConfig
    from verl.workers.engine_workers import TrainingWorker

    job.backend.prepare()
    engine_config, optimizer_config = job.backend.configs(job)
    model_config = HFModelConfig(
        path=job.model,
        use_remove_padding=job.backend.strategy == "megatron",
        enable_gradient_checkpointing=False,
        override_config={"attn_implementation": "sdpa"},
        lora_rank=job.lora_rank,
        lora_alpha=2 * job.lora_rank,
    )
    worker = TrainingWorker(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=model_config,
            engine_config=engine_config,
            optimizer_config=optimizer_config,
            checkpoint_config=CheckpointConfig(),
        )
    )
    worker.reset()
    return worker


def train(job: Job) -> Outcome:
    """Runs on every rank of a world."""
    from tests.engines.losses import LOSSES

    worker = make_worker(job)
    loss = Mock(side_effect=partial(LOSSES[job.loss], config=actor_config(job), air=job.air))
    worker.set_loss_fn(loss)
    gradients = _record_gradients(worker.engine, job.backend)
    outputs = [worker.train_mini_batch(prepared(worker, job)) for _ in range(job.steps)]
    parameters = job.backend.parameters(worker.engine)
    metrics = [dict(output["metrics"]) for output in outputs if output is not None]
    place = job.backend.place(worker.engine)
    if torch.distributed.get_rank() != 0:
        gradients, parameters = [], {}
    return Outcome(gradients, parameters, metrics, loss.call_count, place)


def _record_gradients(engine: Any, backend: Backend) -> list[Gradients]:
    recorded: list[Gradients] = []
    step = engine.optimizer_step

    def recording_step() -> Any:
        recorded.append(backend.gradients(engine))
        return step()

    engine.optimizer_step = recording_step
    return recorded


def actor_config(job: Job) -> Any:
    """verl's ``ActorConfig`` of a case."""
    from verl.workers.config import ActorConfig, PolicyLossConfig

    return ActorConfig(
        strategy=job.backend.strategy,
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=job.micro_batch,
        loss_agg_mode=job.loss_agg_mode,
        policy_loss=PolicyLossConfig(loss_mode=job.loss_mode),
    )


CORRECTION = {
    "rollout_is": "token",
    "rollout_is_threshold": 1.1,
    "rollout_rs": "seq_mean_k1",
    "rollout_rs_threshold": "0.9_1.1",
}
"""verl's rollout correction of the cases ``recomputed`` and ``reused``: with weights that are cut and rows rejected."""


def prepared(worker: Any, job: Job) -> Any:
    """The columns of a case. In ``recomputed`` and ``reused`` the batch's old log-probs are those of the rollout."""
    data = columns(job, worker.engine)
    if job.loss in ("recomputed", "reused"):
        data["rollout_log_probs"] = data.pop("old_log_probs")
    return with_recomputed(worker, job, data) if job.loss == "recomputed" else data


def with_recomputed(worker: Any, job: Job, data: TensorDict) -> TensorDict:
    """verl's way: a forward pass with the engine, then its correction of the whole batch."""
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_rejection_mask
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.padding import response_from_nested, response_to_nested

    asked = data.copy()
    tu.assign_non_tensor(asked, compute_loss=False, calculate_entropy=False, micro_batch_size_per_gpu=job.micro_batch)
    output = worker.infer_batch(asked)
    # One rank of each model replica has the log-probs; verl's driver hands them to all.
    rank = worker.engine.get_data_parallel_rank()
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, (rank, None if output is None else output["log_probs"].unbind()))
    rows = next(log_probs for replica, log_probs in found if replica == rank and log_probs is not None)
    mask = data["response_mask"]
    old = response_from_nested(torch.nested.as_nested_tensor(list(rows), layout=torch.jagged), mask)
    data["old_log_probs"] = old
    padded = data.select("old_log_probs", "rollout_log_probs", "response_mask").to_padded_tensor()
    weights, kept, _ = compute_rollout_correction_and_rejection_mask(
        padded["old_log_probs"], padded["rollout_log_probs"], padded["response_mask"], **CORRECTION
    )
    data["rollout_is_weights"] = response_to_nested(weights.batch["rollout_is_weights"], mask)
    data["response_mask"] = response_to_nested(kept, mask)
    return data


def consistency_weight_T(response: Tensor, valid: bool) -> Tensor:
    """Weights of ``air.consistency`` that differ from token to token; none for a row that takes no part."""
    return torch.sin(response.float()) * float(valid)


def columns(job: Job, engine: Any) -> TensorDict:
    """This rank's share of the batch, cut as verl's dispatch cuts it: equal parts in order."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu

    share = len(job.batch) // engine.get_data_parallel_size()
    start = engine.get_data_parallel_rank() * share
    rows = range(start, start + share)
    part = job.batch.take(rows)
    weight_N = driver_weights(job.batch, job.air)[list(rows)]

    def nested(values: list[Tensor]) -> Tensor:
        return torch.nested.as_nested_tensor(values, layout=torch.jagged)

    def per_token(values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        return nested([torch.full((len(r),), v, dtype=dtype) for r, v in zip(part.responses, values, strict=True)])

    texts = [torch.cat(pair) for pair in zip(part.prompts, part.responses, strict=True)]
    mask = per_token(part.valid_N, torch.int64)
    data = TensorDict(
        {
            "input_ids": nested(texts),
            "position_ids": nested([torch.arange(len(text)) for text in texts]),
            "prompts": nested(part.prompts),
            "responses": nested(part.responses),
            "response_mask": mask,
            "loss_mask": mask,
            "old_log_probs": nested(part.old_log_probs),
            "advantages": per_token(part.advantage_N),
            "air_weight": per_token(weight_N),
            "consistency_weight": nested([*map(consistency_weight_T, part.responses, part.valid_N)]),
        },
        batch_size=share,
    )
    mini_batch = job.mini_batch or len(job.batch)
    tu.assign_non_tensor(
        data,
        calculate_entropy=False,
        global_batch_size=mini_batch,
        mini_batch_size=mini_batch,
        epochs=1,
        seed=0,
        dataloader_kwargs={"shuffle": False},
        temperature=1.0,
    )
    return data
