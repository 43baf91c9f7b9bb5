r"""``true_false``: the answer is the word "true" or the word "false", and nothing else.

A box, emphasis, capitals and a full stop do not count. "not true", "true and false" and "truely" are no answer.
"""

from verl_air.rewards import RewardError, Sample, Verdict, last_boxed, register_reward

_WORDS = ("true", "false")
_LONGEST = 100


def parse_word(answer: str) -> str | None:
    """``"true"``, ``"false"`` or ``None``."""
    boxed = last_boxed(answer) if len(answer) <= _LONGEST else None
    text = answer if boxed is None else boxed
    if len(text) > _LONGEST:
        return None
    word = text.removeprefix("\\text{").removesuffix("}").strip(" \t\n*_\"'.").lower()
    return word if word in _WORDS else None


def _other(truth: str) -> str:
    return _WORDS[truth == "true"]


@register_reward(
    "true_false",
    gold=lambda sample: f"\\boxed{{{sample.ground_truth}}}",
    wrong=lambda sample: f"\\boxed{{{_other(sample.ground_truth.strip().lower())}}}",
)
def true_false(sample: Sample, *, right: float = 1.25, wrong: float = -1.0) -> Verdict:
    """Right if the answer is the word of the ground truth.

    Raises:
        RewardError: the ground truth is neither word.
    """
    truth = sample.ground_truth.strip().lower()
    if truth not in _WORDS:
        raise RewardError(f"{sample.where}: ground truth {sample.ground_truth!r} is neither 'true' nor 'false'")
    correct = sample.answer is not None and parse_word(sample.answer) == truth
    return Verdict(right if correct else wrong, correct)
