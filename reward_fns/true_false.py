r"""``true_false``: the answer is the word "true" or the word "false", and nothing else.

As ``exact_match``: capitals do not count, nor does decoration. "not true", "true and false", "true?" and "truely" are
no answer.
"""

from reward_fns.exact_match import exact_match
from verl_air.rewards import RewardError, Sample, Verdict, register_reward

_OTHER = {"true": "false", "false": "true"}


@register_reward(
    "true_false",
    gold=lambda sample: f"\\boxed{{{sample.ground_truth}}}",
    wrong=lambda sample: f"\\boxed{{{_OTHER.get(sample.ground_truth.strip().lower())}}}",
)
def true_false(sample: Sample, *, right: float = 1.25, wrong: float = -1.0) -> Verdict:
    """Right if the answer is the word of the ground truth.

    Raises:
        RewardError: the ground truth is neither word.
    """
    if sample.ground_truth.strip().lower() not in _OTHER:
        raise RewardError(f"{sample.where}: ground truth {sample.ground_truth!r} is neither 'true' nor 'false'")
    return exact_match(sample, right=right, wrong=wrong)
