r"""``exact_match``: the answer is the ground truth, letter for letter, but for case, blanks and a full stop."""

from verl_air.rewards import Sample, Verdict, last_boxed, register_reward


def normalise(text: str, ignore_case: bool) -> str:
    """Runs of white space become one blank; the ends lose blanks, emphasis, quotes and a full stop."""
    text = " ".join(text.split()).strip(" *\"'").removesuffix(".").rstrip()
    return text.casefold() if ignore_case else text


@register_reward(
    "exact_match",
    gold=lambda sample: f"\\boxed{{{sample.ground_truth}}}",
    wrong=lambda sample: f"\\boxed{{not {sample.ground_truth}}}",
)
def exact_match(sample: Sample, *, right: float = 1.25, wrong: float = -1.0, ignore_case: bool = True) -> Verdict:
    """Right if the answer, or what its last box holds, equals the ground truth."""
    truth = normalise(sample.ground_truth, ignore_case)
    answer = sample.answer or ""
    # An answer that is much longer cannot be equal; it is not even read.
    if not truth or len(answer) > 4 * len(sample.ground_truth) + 1000:
        return Verdict(wrong, False)
    boxed = last_boxed(answer)
    correct = truth in (normalise(answer, ignore_case), normalise(boxed or "", ignore_case))
    return Verdict(right if correct else wrong, correct)
