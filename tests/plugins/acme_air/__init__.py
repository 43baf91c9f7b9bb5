"""Registers the reward `acme_brevity` and the regularizer `acme_push`. Importing it is all it takes."""

import torch

from verl_air.objective import register_regularizer
from verl_air.rewards import Sample, Verdict, register_reward


@register_reward("acme_brevity", gold=lambda sample: "yes", wrong=lambda sample: "no " * 100)
def brevity(sample: Sample, *, right: float = 1.0, wrong: float = 0.0, limit: int = 100) -> Verdict:
    short = sample.answer is not None and len(sample.answer) <= limit
    return Verdict(right if short else wrong, short)


@register_regularizer("acme_push")
def push(groups, options):
    return torch.ones_like(groups.reward_N)
