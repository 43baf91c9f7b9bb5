"""A step of the quickstart in plain PyTorch: sampled, judged and weighted as in training, without Ray and vLLM."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_air.data.schema import DataRow, read_rows
from verl_air.playground.language import judge_prompt
from verl_air.playground.measure import MAX_RESPONSE_TOKENS, verdict_log_odds
from verl_air.rewards import extract_answer

INTENTS, OPEN, K = 12, 3, 3


@dataclass(frozen=True)
class Step:
    """One batch of N trajectories with the gradient-carrying log-probs of their response tokens.

    reward_N: total reward; task_N: right +1, wrong -1 (``aux_reward: task`` and ``reward_scale: unit``).
    """

    log_prob_NT: Tensor
    mask_NT: Tensor
    reward_N: Tensor
    task_N: Tensor
    prompt_N: Tensor
    intent_N: Tensor
    framing_N: list[str]

    @property
    def is_anchor_N(self) -> Tensor:
        """Anchor rows."""
        return torch.tensor([framing == "multiple_choice" for framing in self.framing_N])


class Playground:
    """A world's training rows, its warm-started policy, and a frozen copy of it as the judge."""

    def __init__(self, world: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(world / "model", padding_side="left")
        self.policy = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32)
        self.judge = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32).eval()
        self.rows: dict[str, dict[str, list[DataRow]]] = defaultdict(lambda: defaultdict(list))
        for row in read_rows(world / "train.parquet"):
            self.rows[row["extra_info"]["intent_id"]][row["extra_info"]["role"]].append(row)

    def step(self, rng: random.Random) -> Step:
        """Sample whole meta-groups."""
        rows = [
            row
            for intent in rng.sample(sorted(self.rows), INTENTS)
            for role, count in (("anchor", 1), ("open", OPEN))
            for row in rng.sample(self.rows[intent][role], count)
        ]
        prompts = self.tokenizer.apply_chat_template(
            [row["prompt"] for row in rows for _ in range(K)],
            add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip
        encoded = {name: prompts[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            ids_NT = self.policy.generate(
                **encoded, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=MAX_RESPONSE_TOKENS
            )
        width, end = encoded["input_ids"].shape[1], self.tokenizer.eos_token_id
        response_NT = ids_NT[:, width:]
        mask_NT = ((response_NT == end).cumsum(-1) - (response_NT == end).long() == 0).float()
        attention_NT = torch.cat([encoded["attention_mask"], mask_NT.long()], -1)
        positions_NT = (attention_NT.cumsum(-1) - 1).clamp(min=0)
        logits = self.policy(input_ids=ids_NT, attention_mask=attention_NT, position_ids=positions_NT).logits
        log_prob_NT = logits[:, width - 1 : -1].log_softmax(-1).gather(-1, response_NT[..., None])[..., 0]
        answers = [extract_answer(text) for text in self.tokenizer.batch_decode(response_NT, skip_special_tokens=True)]
        sampled = [row for row in rows for _ in range(K)]
        right = self._right(sampled, answers)
        prompt_N = torch.arange(len(rows)).repeat_interleave(K)
        well_formed = [answer is not None for answer in answers]
        return Step(
            log_prob_NT=log_prob_NT,
            mask_NT=mask_NT,
            reward_N=torch.tensor(
                [(1.25 if r else -1.0) + (1.25 if f else -1.0) for r, f in zip(right, well_formed, strict=True)]
            ),
            task_N=torch.tensor([1.0 if r else -1.0 for r in right]),
            prompt_N=prompt_N,
            intent_N=prompt_N // (1 + OPEN),
            framing_N=[row["extra_info"]["context"] for row in sampled],
        )

    def _right(self, rows: list[DataRow], answers: list[str | None]) -> list[bool]:
        """Anchors by rule, open answers by the judge."""
        right = [answer == row["reward_model"]["ground_truth"] for row, answer in zip(rows, answers, strict=True)]
        asked = [n for n, row in enumerate(rows) if row["extra_info"]["role"] == "open" and answers[n] is not None]
        requests = [json.loads(rows[n]["extra_info"]["extras"])["request"] for n in asked]
        prompts = [judge_prompt(request, answers[n] or "") for request, n in zip(requests, asked, strict=True)]
        if not asked:
            return right
        for n, odds in zip(asked, verdict_log_odds(self.judge, self.tokenizer, prompts).tolist(), strict=True):
            right[n] = odds > 0
        return right
