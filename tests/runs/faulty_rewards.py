"""Rewards with a mistake, for runs that must end with it."""

from __future__ import annotations

from verl_air.rewards import Sample, Verdict, register_reward


@register_reward("a_tenth_out_of_range", reward_range=(-1.0, 1.25))
def a_tenth_out_of_range(sample: Sample) -> Verdict:
    """Right, but on a tenth of the rows above the range that it declares."""
    return Verdict(7.0 if is_faulty(sample.extra_info["index"]) else 1.25, right=True)


def is_faulty(index: int) -> bool:
    """Whether a row is in that tenth."""
    return index % 10 == 1
