"""Rewards for runs: one with a mistake, with which they must end, and one that varies whatever the policy."""

from __future__ import annotations

from verl_air.rewards import Sample, Verdict, register_reward


@register_reward("a_tenth_out_of_range", reward_range=(-1.0, 1.25))
def a_tenth_out_of_range(sample: Sample) -> Verdict:
    """Right, but on a tenth of the rows above the range that it declares."""
    return Verdict(7.0 if is_faulty(sample.extra_info["index"]) else 1.25, right=True)


def is_faulty(index: int) -> bool:
    """Whether a row is in that tenth."""
    return index % 10 == 1


@register_reward("by_its_letters", reward_range=(-1.0, 1.25))
def by_its_letters(sample: Sample) -> Verdict:
    """Right for about half of all responses, an untrained policy's too."""
    right = sum(sample.response.encode()) % 2 == 0
    return Verdict(1.25 if right else -1.0, right)
