"""How far an off-policy gradient is from the on-policy one, with policies that a real asynchronous run went through.

Rollouts are sampled from the checkpoint of an earlier step and trained on with that of a later one, by the implemented
weights, ratio and loss. Norms of differences are products of two independent halves of the samples, so that noise does
not count as bias: a bias below it may come out as zero. ``python -m tests.runs.staleness RUN`` prints a table.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

from verl_air.evaluation.checkpoints import model_folder
from verl_air.objective import importance_ratio, surrogate_loss, trajectory_weights, unit_scale
from verl_air.rewards import compute_score

torch.set_num_threads(1)
COMPLETIONS, TOKENS, INTENTS = 3, 16, 24
LEVELS = {"none": None, "token": ("token", 2.0), "sequence": ("sequence", 5.0)}
"""verl's level and threshold."""


class Prompts:
    """An anchor and three open rows of each of the first intents of the training file."""

    def __init__(self, playground: Path) -> None:
        rows = pq.read_table(playground / "train.parquet").to_pylist()
        self.rows: list[dict[str, Any]] = []
        for intent in dict.fromkeys(row["extra_info"]["intent_id"] for row in rows[:2000]):
            own = [row for row in rows if row["extra_info"]["intent_id"] == intent]
            for role, count in (("anchor", 1), ("open", 3)):
                self.rows += [row for row in own if row["extra_info"]["role"] == role][:count]
            if len(self.rows) == 4 * INTENTS:
                break
        self.rows = [row for row in self.rows for _ in range(COMPLETIONS)]
        self.prompt_N = torch.arange(len(self.rows)) // COMPLETIONS
        self.intent_N = self.prompt_N // 4
        self.is_anchor_N = torch.tensor([row["extra_info"]["role"] == "anchor" for row in self.rows])
        self.tokenizer = AutoTokenizer.from_pretrained(playground / "model", padding_side="left")
        chats = [row["prompt"] for row in self.rows]
        self.encoded = self.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
        )


def gradients(prompts: Prompts, behaviour: Any, policy: Any, reward_kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """One batch of rollouts by ``behaviour``: the gradient of J_aux at ``policy``, by level of correction."""
    width = prompts.encoded["input_ids"].shape[1]
    with torch.no_grad():
        ids_NT = behaviour.generate(
            **prompts.encoded, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=TOKENS
        )
    response_NT = ids_NT[:, width:]
    ended_NT = (response_NT == prompts.tokenizer.eos_token_id).cumsum(1) - (
        response_NT == prompts.tokenizer.eos_token_id
    ).long()
    mask_NT = (ended_NT == 0).float()
    answers = [
        prompts.tokenizer.decode(row[keep.bool()], skip_special_tokens=True)
        for row, keep in zip(response_NT, mask_NT, strict=True)
    ]

    async def score_all() -> list[dict[str, float]]:
        return [
            await compute_score(
                row["data_source"], answer, row["reward_model"]["ground_truth"], row["extra_info"], **reward_kwargs
            )
            for row, answer in zip(prompts.rows, answers, strict=True)
        ]

    scores = asyncio.run(score_all())
    reward_N = unit_scale(*(torch.tensor([s[k] for s in scores]) for k in ("task_reward", "task_min", "task_max")))
    weight_N = trajectory_weights(reward_N, prompts.prompt_N, prompts.intent_N, prompts.is_anchor_N, gap="positive")

    attention_NT = torch.cat([prompts.encoded["attention_mask"], mask_NT.long()], 1)
    position_NT = (attention_NT.cumsum(1) - 1).clamp(min=0)

    def log_probs(model: Any) -> Tensor:
        logits = model(input_ids=ids_NT, attention_mask=attention_NT, position_ids=position_NT).logits[
            :, width - 1 : -1
        ]
        return logits.log_softmax(-1).gather(-1, response_NT.unsqueeze(-1)).squeeze(-1)

    new_NT = log_probs(policy)
    with torch.no_grad():
        rollout_NT = log_probs(behaviour)
    found = {}
    for name, level in LEVELS.items():
        ratio_NT = None
        if level:
            weights, _ = compute_rollout_correction_weights(
                new_NT.detach() - rollout_NT, mask_NT, rollout_is=level[0], rollout_is_threshold=level[1]
            )
            ratio_NT = importance_ratio(new_NT, new_NT, weights)
        loss = surrogate_loss(new_NT, weight_N, mask_NT, num_trajectories=len(weight_N), ratio_NT=ratio_NT)
        parts = torch.autograd.grad(loss, list(policy.parameters()), retain_graph=True, allow_unused=True)
        found[name] = torch.cat([part.flatten() for part in parts if part is not None])
    return found


def bias_by_staleness(run: Path, last: int, lags: tuple[int, ...], repeats: int) -> dict[int, dict[str, float]]:
    """Norm of the bias over the norm of the on-policy gradient, by steps between rollout and update."""
    recipe = OmegaConf.load(next(run.rglob("hydra/.hydra/config.yaml"), None) or next(run.rglob("config.yaml")))
    reward_kwargs = OmegaConf.to_container(recipe.reward.custom_reward_function.reward_kwargs, resolve=True)
    prompts = Prompts(Path(recipe.playground))
    load = {step: AutoModelForCausalLM.from_pretrained(model_folder(run, str(step))) for step in
            {last, *(last - lag for lag in lags)}}  # fmt: skip
    policy = load[last]

    def halves(behaviour: Any) -> list[dict[str, Tensor]]:
        result = []
        for _ in range(2):
            batches = [gradients(prompts, behaviour, policy, reward_kwargs) for _ in range(repeats)]
            result.append({name: torch.stack([b[name] for b in batches]).mean(0) for name in LEVELS})
        return result

    torch.manual_seed(0)
    on = [half["none"] for half in halves(policy)]
    norm = float(on[0] @ on[1])
    if norm <= 0:  # a bias relative to noise would read as zero
        raise ValueError(f"the on-policy gradient is lost in noise with {repeats} batches per half: take more")
    table = {}
    for lag in lags:
        off = halves(load[last - lag])
        table[lag] = {
            name: max(0.0, float((off[0][name] - on[0]) @ (off[1][name] - on[1])) / norm) ** 0.5 for name in LEVELS
        }
        print(lag, {name: round(value, 3) for name, value in table[lag].items()}, flush=True)
    return table


if __name__ == "__main__":
    bias_by_staleness(Path(sys.argv[1]), int(sys.argv[2]), tuple(map(int, sys.argv[3].split(","))), int(sys.argv[4]))
