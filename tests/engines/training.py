"""One training step of verl's own ``TrainingWorker`` on a rank, with the gradients that its optimizer was given.

The way in is the trainer's: columns of nested tensors, the extra information of ``PPOTrainer._update_actor``, and
``train_mini_batch``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from tests.engines.batch import Batch, driver_weights
from verl_air.config import AirConfig

if TYPE_CHECKING:
    from tensordict import TensorDict

Gradients = dict[str, Tensor]

AIR = AirConfig(coef=0.05, estimator="paper")
"""Policy loss and auxiliary loss then weigh about alike on the tiny model, so that a fault in either shows."""


class Backend(Protocol):
    """What differs between verl's engines. Instances are sent to the ranks."""

    @property
    def strategy(self) -> str:
        """verl's name of the engine."""

    def prepare(self) -> None:
        """Whatever must be done before an engine is built."""

    def configs(self, job: Job) -> tuple[Any, Any]:
        """verl's engine and optimizer config."""

    def gradients(self, engine: Any) -> Gradients:
        """Whole gradients by Hugging Face name, before clipping; a collective call."""

    def parameters(self, engine: Any) -> Gradients:
        """Whole parameters by Hugging Face name; a collective call."""

    def place(self, engine: Any) -> dict[str, Any]:
        """The position of this rank in each parallel dimension."""


@dataclass(frozen=True)
class Job:
    """A case.

    model: folder.
    loss: a name of ``losses.LOSSES``.
    micro_batch: rows; with ``max_tokens`` verl packs micro-batches by tokens instead.
    mini_batch: rows over all ranks, the whole batch by default.
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
    from verl.workers.config import TrainingWorkerConfig
    from verl.workers.engine_workers import TrainingWorker

    job.backend.prepare()
    engine_config, optimizer_config = job.backend.configs(job)
    worker = TrainingWorker(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=_model_config(job),
            engine_config=engine_config,
            optimizer_config=optimizer_config,
            checkpoint_config=_checkpoint_config(),
        )
    )
    worker.reset()
    return worker


def train(job: Job) -> Outcome:
    """Runs on every rank of a world."""
    from tests.engines.losses import LOSSES

    worker = make_worker(job)
    loss = _Counted(partial(LOSSES[job.loss], config=actor_config(job), air=job.air))
    worker.set_loss_fn(loss)
    gradients = _record_gradients(worker.engine, job.backend)
    metrics = []
    for _ in range(job.steps):
        output = worker.train_mini_batch(columns(job, worker.engine))
        if output is not None:
            metrics.append(dict(output["metrics"]))
    parameters = job.backend.parameters(worker.engine)
    first = torch.distributed.get_rank() == 0
    return Outcome(
        gradients if first else [],
        parameters if first else {},
        metrics,
        loss.calls,
        job.backend.place(worker.engine),
    )


class _Counted:
    def __init__(self, loss: Any) -> None:
        self.loss = loss
        self.calls = 0

    def __call__(self, **kwargs: Any) -> Any:
        self.calls += 1
        return self.loss(**kwargs)


def _record_gradients(engine: Any, backend: Backend) -> list[Gradients]:
    recorded: list[Gradients] = []
    step = engine.optimizer_step

    def recording_step() -> Any:
        recorded.append(backend.gradients(engine))
        return step()

    engine.optimizer_step = recording_step
    return recorded


def _model_config(job: Job) -> Any:
    from verl.workers.config import HFModelConfig

    return HFModelConfig(
        path=job.model,
        use_remove_padding=job.backend.strategy == "megatron",
        enable_gradient_checkpointing=False,
        override_config={"attn_implementation": "sdpa"},
    )


def _checkpoint_config() -> Any:
    from verl.trainer.config import CheckpointConfig

    return CheckpointConfig()


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


def columns(job: Job, engine: Any) -> TensorDict:
    """This rank's share of the batch, cut as verl's dispatch cuts it: equal parts in order."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu

    whole = job.batch
    weight_N = driver_weights(whole, job.air)
    share = len(whole) // engine.get_data_parallel_size()
    start = engine.get_data_parallel_rank() * share
    rows = range(start, start + share)
    part = whole.take(rows)

    def nested(values: list[Tensor]) -> Tensor:
        return torch.nested.as_nested_tensor(values, layout=torch.jagged)

    def per_token(values: Any) -> Tensor:
        return nested(
            [torch.full((len(r),), float(v)) for r, v in zip(part.responses, values, strict=True)],
        )

    texts = [torch.cat(pair) for pair in zip(part.prompts, part.responses, strict=True)]
    mask = nested(
        [torch.full_like(r, int(valid)) for r, valid in zip(part.responses, part.valid_N, strict=True)],
    )
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
            "air_weight": per_token(weight_N[list(rows)]),
        },
        batch_size=share,
    )
    mini_batch = job.mini_batch or len(whole)
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
