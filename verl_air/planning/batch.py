"""Batch arithmetic: intents, prompts, completions and tokens of a step, and what a data-parallel rank gets of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from verl_air.planning.layout import Layout

_ROLE = "actor_rollout_ref"


@dataclass(frozen=True)
class Batch:
    """A step. Lengths are the longest that a recipe allows, in tokens."""

    prompts: int
    group_size: int
    completions: int
    mini_batch_prompts: int
    prompt_length: int
    response_length: int
    dynamic: bool
    token_budget: int
    micro_batch: int
    micro_batch_tokens: int

    @property
    def intents(self) -> int:
        """Meta-groups in a step."""
        return self.prompts // self.group_size

    @property
    def trajectories(self) -> int:
        """Prompts times completions."""
        return self.prompts * self.completions

    @property
    def updates(self) -> int:
        """Optimizer steps in a step."""
        return max(self.prompts // max(self.mini_batch_prompts, 1), 1)

    @property
    def sequence_length(self) -> int:
        """Prompt and response."""
        return self.prompt_length + self.response_length


def read_batch(config: DictConfig, layout: Layout) -> Batch:
    """The batch of a composed recipe, with the longest micro-batch that a GPU sees.

    With a dynamic batch size a micro-batch holds up to ``token_budget`` tokens a GPU: verl multiplies the budget by the
    context-parallel size, and each of these ranks holds its share (workers/engine/utils.py).
    """
    data, role = config.data, config[_ROLE]
    air = config.get("air", None) or {}
    length = int(data.max_prompt_length) + int(data.max_response_length)
    dynamic = bool(role.actor.use_dynamic_bsz)
    budget, micro = int(role.actor.ppo_max_token_len_per_gpu), int(role.actor.ppo_micro_batch_size_per_gpu or 1)
    return Batch(
        prompts=int(data.train_batch_size),
        group_size=int(air.get("anchors_per_intent", 1)) + int(air.get("open_per_intent", 3)) if air else 1,
        completions=int(role.rollout.n),
        mini_batch_prompts=int(role.actor.ppo_mini_batch_size),
        prompt_length=int(data.max_prompt_length),
        response_length=int(data.max_response_length),
        dynamic=dynamic,
        token_budget=budget,
        micro_batch=micro,
        micro_batch_tokens=budget if dynamic else -(-micro * length // layout.context),
    )


def batch_faults(config: DictConfig, batch: Batch, layout: Layout) -> Iterator[str]:
    """What does not divide or does not fit in a batch."""
    actor = f"{_ROLE}.actor"
    if batch.prompts % batch.group_size:
        yield (
            f"data.train_batch_size={batch.prompts} cannot hold whole meta-groups of {batch.group_size} prompts "
            "(air.anchors_per_intent + air.open_per_intent)"
        )
    if batch.mini_batch_prompts > batch.prompts:
        yield (f"{actor}.ppo_mini_batch_size={batch.mini_batch_prompts} is above data.train_batch_size={batch.prompts}")
    rows = batch.mini_batch_prompts * batch.completions
    if rows % layout.data:
        yield (
            f"{actor}.ppo_mini_batch_size={batch.mini_batch_prompts} x {batch.completions} completions = {rows} "
            f"trajectories do not divide among the {layout.data} data-parallel ranks"
        )
    if batch.dynamic:
        yield from _token_budgets(config, batch, layout)
    elif rows % layout.data == 0 and rows // layout.data % batch.micro_batch:
        yield (
            f"{actor}.ppo_micro_batch_size_per_gpu={batch.micro_batch} does not divide the {rows // layout.data} "
            "trajectories that a data-parallel rank gets of a mini-batch"
        )


def _token_budgets(config: DictConfig, batch: Batch, layout: Layout) -> Iterator[str]:
    for key in ("actor.ppo_max_token_len_per_gpu", "rollout.log_prob_max_token_len_per_gpu"):
        budget = int(OmegaConf.select(config, f"{_ROLE}.{key}"))
        if budget * layout.context < batch.sequence_length:
            times = f" x {layout.context} (context parallel)" if layout.context > 1 else ""
            yield (
                f"{_ROLE}.{key}={budget}{times} cannot hold one sequence of {batch.sequence_length} tokens "
                f"(data.max_prompt_length {batch.prompt_length} + data.max_response_length {batch.response_length})"
            )
