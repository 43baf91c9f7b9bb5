"""How far an off-policy gradient of J_aux is from the on-policy one, with policies that a real asynchronous run had.

Rollouts are sampled from the checkpoint of an earlier step and trained on with that of a later one, by the implemented
weights, ratio and loss and the run's own rewards. ``python -m tests.runs.staleness RUN STEP LAGS BATCHES`` prints the
table of docs/estimators.md, for instance ``... runs/async 6 1,2,3 32``.

What makes bias visible in noise: both policies sample with the same random numbers, so that a batch's difference is
small where the policies are alike; a weight is averaged over several ways to put the completions of a prompt into
groups of K, which changes no expectation; and squared norms are products of different batches, in which noise averages
out instead of adding up. Intervals are 95 %, by the jackknife over batches.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

from verl_air import AirConfig
from verl_air.objective import importance_ratio, surrogate_loss, trajectory_weights, unit_scale
from verl_air.rewards import compute_score

INTENTS, COMPLETIONS, POOL, REGROUPINGS = 24, 3, 12, 8
"""POOL: completions of a prompt in a batch, for several groups of COMPLETIONS."""
CORRECTIONS = ("none", "token", "sequence")


class Estimate(NamedTuple):
    """|E[off-policy] - E[on-policy]| / |E[on-policy]|."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def relative_norm(vector_BP: Tensor, reference_BP: Tensor) -> Estimate:
    """|E[vector]| / |E[reference]| from batches B of both; 0 where the vector is lost in noise.

    Raises:
        ValueError: the reference is lost in noise.
    """
    squares = []
    for gram_BB in (vector_BP @ vector_BP.T, reference_BP @ reference_BP.T):
        n, own_B, row_B = len(gram_BB), gram_BB.diagonal(), gram_BB.sum(1)
        total = row_B.sum() - own_B.sum()
        squares.append((total / (n * (n - 1)), (total - 2 * (row_B - own_B)) / ((n - 1) * (n - 2))))
    (whole, without_B), (reference, reference_without_B) = squares
    if reference <= 3 * _jackknife_error(reference_without_B):
        raise ValueError(f"the reference is lost in noise with {len(vector_BP)} batches: take more")
    square, error = whole / reference, _jackknife_error(without_B / reference_without_B)
    return Estimate(*(max(0.0, float(square + z * error)) ** 0.5 for z in (0.0, -1.96, 1.96)))


def _jackknife_error(without_B: Tensor) -> float:
    return float(((len(without_B) - 1) * without_B.var(correction=0)) ** 0.5)


class Measurement:
    """An anchor and three open rows of each of the first intents of a run's training file, and its rewards."""

    def __init__(self, recipe: DictConfig) -> None:
        self.air = AirConfig.from_mapping(OmegaConf.to_container(recipe.air, resolve=True))
        assert (self.air.aux_reward, self.air.reward_scale) == ("task", "unit"), "the quickstart's"
        self.reward_kwargs = OmegaConf.to_container(recipe.reward.custom_reward_function.reward_kwargs, resolve=True)
        self.tokens = int(recipe.data.max_response_length)
        rows = pq.read_table(recipe.data.train_files[0]).to_pylist()
        by_intent: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for row in rows:
            own = by_intent.setdefault(row["extra_info"]["intent_id"], {"anchor": [], "open": []})
            own[row["extra_info"]["role"]].append(row)
        groups = [[*own["anchor"][:1], *own["open"][:3]] for own in list(by_intent.values())[:INTENTS]]
        assert {len(group) for group in groups} == {4}
        self.rows = [row for group in groups for row in group for _ in range(POOL)]
        self.prompt_N = torch.arange(len(self.rows)) // POOL
        self.is_anchor_N = torch.tensor([row["extra_info"]["role"] == "anchor" for row in self.rows])
        tokenizer = AutoTokenizer.from_pretrained(recipe.actor_rollout_ref.model.path, padding_side="left")
        chats = [row["prompt"] for row in self.rows]
        self.tokenizer = tokenizer
        self.encoded = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
        )
        self._scores: dict[tuple[int, str], float] = {}

    def gradients(self, behaviour: Any, policy: Any, seed: int) -> dict[str, Tensor]:
        """The gradient at ``policy`` of J_aux on one batch of rollouts by ``behaviour``, by correction."""
        torch.manual_seed(seed)
        width = self.encoded["input_ids"].shape[1]
        with torch.no_grad():
            ids_NT = behaviour.generate(
                **self.encoded, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=self.tokens
            )
        response_NT = ids_NT[:, width:]
        ended_NT = response_NT == self.tokenizer.eos_token_id
        mask_NT = (ended_NT.cumsum(1) - ended_NT.long() == 0).long()
        weight_N = self._weights(asyncio.run(self._rewards(response_NT, mask_NT)), seed)
        taken_M = weight_N.nonzero().squeeze(1)  # of the other rows there is no gradient
        ids_MT, response_MT, mask_MT = ids_NT[taken_M], response_NT[taken_M], mask_NT[taken_M]
        attention_MT = torch.cat([self.encoded["attention_mask"][taken_M], mask_MT], 1)
        position_MT = (attention_MT.cumsum(1) - 1).clamp(min=0)

        def log_probs(model: Any) -> Tensor:
            logits = model(input_ids=ids_MT, attention_mask=attention_MT, position_ids=position_MT).logits
            return logits[:, width - 1 : -1].log_softmax(-1).gather(-1, response_MT.unsqueeze(-1)).squeeze(-1)

        new_MT = log_probs(policy)
        ratios: dict[str, Tensor | None] = {"none": None}
        if behaviour is not policy:
            with torch.no_grad():
                moved_MT = new_MT.detach() - log_probs(behaviour)
            for level, threshold in (("token", 2.0), ("sequence", 5.0)):
                correction, _ = compute_rollout_correction_weights(
                    moved_MT, mask_MT.float(), rollout_is=level, rollout_is_threshold=threshold
                )
                ratios[level] = importance_ratio(new_MT, new_MT, correction)
        parameters, found = list(policy.parameters()), {}
        for name, ratio_MT in ratios.items():
            loss = surrogate_loss(new_MT, weight_N[taken_M], mask_MT, num_trajectories=len(weight_N), ratio_NT=ratio_MT)
            found[name] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
        return found

    async def _rewards(self, response_NT: Tensor, mask_NT: Tensor) -> Tensor:
        scores = []
        for index, (row, ids_T, mask_T) in enumerate(zip(self.rows, response_NT, mask_NT, strict=True)):
            answer = self.tokenizer.decode(ids_T[mask_T.bool()], skip_special_tokens=True)
            key = (index // POOL, answer)
            if key not in self._scores:
                score = await compute_score(
                    row["data_source"], answer, row["reward_model"]["ground_truth"], row["extra_info"],
                    **self.reward_kwargs,
                )  # fmt: skip
                columns = (torch.tensor([score[name]]) for name in ("task_reward", "task_min", "task_max"))
                self._scores[key] = unit_scale(*columns).item()
            scores.append(self._scores[key])
        return torch.tensor(scores, dtype=torch.float64)

    def _weights(self, reward_N: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        total_N = torch.zeros(len(reward_N))
        for _ in range(REGROUPINGS):
            place_N = torch.rand(len(reward_N) // POOL, POOL, generator=generator).argsort(1).flatten()
            groups = POOL // COMPLETIONS
            prompt_N = self.prompt_N * groups + place_N // COMPLETIONS
            group_N = self.prompt_N // 4 * groups + place_N // COMPLETIONS
            options = {"estimator": self.air.estimator, "gap": self.air.gap, "shrinkage": self.air.gap_shrinkage}
            total_N += trajectory_weights(reward_N, prompt_N, group_N, self.is_anchor_N, **options)
        return total_N / REGROUPINGS


def load_policy(run: Path, step: int) -> Any:
    """As it was trained: verl's merger rounds weights to bf16, which is as coarse as an update."""
    actor = run / "checkpoints" / f"global_step_{step}" / "actor"
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(actor / "huggingface"), dtype=torch.float32)
    shard = torch.load(actor / "model_world_size_1_rank_0.pt", weights_only=False)
    model.load_state_dict({name: getattr(value, "_local_tensor", value) for name, value in shard.items()})
    return model.eval()


def bias_by_staleness(run: Path, step: int, lags: tuple[int, ...], batches: int) -> dict[int, dict[str, Estimate]]:
    """The bias of the gradient at a step's checkpoint, by updates between rollout and update, and correction.

    Lag 0 is a control: other samples of the same policy, whose bias is zero.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = Measurement(OmegaConf.load(run / "checkpoints" / "config.yaml"))
        policies = {s: load_policy(run, s) for s in (step, *(step - lag for lag in lags))}
        on_BP = torch.stack(
            [measured.gradients(policies[step], policies[step], seed)["none"] for seed in range(batches)]
        )
        control = [
            measured.gradients(policies[step], policies[step], seed)["none"] for seed in range(batches, 2 * batches)
        ]
        table = {0: {"none": relative_norm(torch.stack(control) - on_BP, on_BP)}}
        for lag in lags:
            off = [measured.gradients(policies[step - lag], policies[step], seed) for seed in range(batches)]
            table[lag] = {
                name: relative_norm(torch.stack([found[name] for found in off]) - on_BP, on_BP) for name in CORRECTIONS
            }
    finally:
        torch.set_num_threads(threads)
    return table


if __name__ == "__main__":
    lags = tuple(map(int, sys.argv[3].split(",")))
    for lag, row in bias_by_staleness(Path(sys.argv[1]), int(sys.argv[2]), lags, int(sys.argv[4])).items():
        print(f"| {lag} | " + " | ".join(str(row[name]) if name in row else "" for name in CORRECTIONS) + " |")
