r"""``true_false``: the answer is the word "true" or the word "false", and nothing else.

Capitals do not count, nor does what `answer_text` calls decoration. "not true", "true and false", "true?" and
"truely" are no answer.
"""

from reward_fns.answer_text import MAX_CHARS, final_answer, plain, undress
from verl_air.rewards import RewardError, Sample, Verdict, register_reward

_WORDS = ("true", "false")


def parse_word(answer: str) -> str | None:
    """``"true"``, ``"false"`` or ``None``."""
    found = final_answer(answer) if len(answer) <= MAX_CHARS else None
    word = plain(undress(found)).lower() if found else ""
    return word if word in _WORDS else None


def _wrong(sample: Sample) -> str:
    return f"\\boxed{{{_WORDS[sample.ground_truth.strip().lower() == 'true']}}}"


@register_reward("true_false", gold=lambda sample: f"\\boxed{{{sample.ground_truth}}}", wrong=_wrong)
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
