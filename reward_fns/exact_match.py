r"""``exact_match``: the answer is the ground truth, letter for letter, but for case, blanks and decoration.

What counts as decoration is in `reward_fns.answer_text`; it is taken off both sides.
"""

from reward_fns.answer_text import final_answer, plain, undress
from verl_air.rewards import Sample, Verdict, register_reward


def normalize(text: str) -> str:
    """A text without decoration and case; runs of white space become one blank."""
    return plain(undress(text)).casefold()


@register_reward(
    "exact_match",
    gold=lambda sample: f"\\boxed{{{sample.ground_truth}}}",
    wrong=lambda sample: f"\\boxed{{not {sample.ground_truth}}}",
)
def exact_match(sample: Sample, *, right: float = 1.25, wrong: float = -1.0) -> Verdict:
    """Right if the answer, or what its last box holds, equals the ground truth."""
    truth = normalize(sample.ground_truth)
    answer = sample.answer or ""
    # An answer that is much longer cannot be equal; it is not even read.
    if not truth or not answer or len(answer) > 4 * len(sample.ground_truth) + 1000:
        return Verdict(wrong, False)
    found = final_answer(answer)
    correct = truth in (normalize(answer), normalize(found or ""))
    return Verdict(right if correct else wrong, correct)
