r"""``multiple_choice``: the answer is the letter of one option, and nothing else.

Read strictly, since an anchor must be beyond doubt. A letter may be in a box, in brackets or in emphasis, after
"the answer is" or "option", and before the very text of its option. Two letters ("A or B"), a negation ("not B"), a
letter that was not offered, a letter that only begins a word or a sentence ("E. coli"), and look-alikes of other
alphabets are no answer.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from string import ascii_uppercase

from verl_air.rewards import RewardError, Sample, Verdict, last_boxed, register_reward

_LONGEST = 1000
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit|rm|boldsymbol) ?\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?:(?:the )?(?:(?:final|correct|right|best) )?(?:answer|option|choice) ?(?:is|:|=)? ?"
    r"(?:(?:option|choice) )?:? ?)?"
    r"(?P<open>[(\[*\"' ]*)(?P<letter>[A-Z])(?P<close>[)\]*\"' ]*)[.,:;!]?[*]*(?P<rest> .*)?",
    re.IGNORECASE | re.ASCII,
)


def offered(sample: Sample, letters: str) -> tuple[str, Mapping[str, str]]:
    """The letters that a row offers, and their texts where they are known.

    A row's extras may hold ``choices`` (texts in the order shown, lettered from A, or a mapping from letter to text) or
    ``letters``.
    """
    choices = sample.extras.get("choices")
    if isinstance(choices, list):
        choices = dict(zip(ascii_uppercase, choices, strict=False))
    texts = {str(letter): str(text) for letter, text in choices.items()} if isinstance(choices, Mapping) else {}
    return "".join(texts) or str(sample.extras.get("letters") or letters), texts


def parse_letter(answer: str, letters: str, texts: Mapping[str, str]) -> str | None:
    """The one offered letter that an answer names, or ``None``."""
    if len(answer) > _LONGEST:
        return None
    boxed = last_boxed(answer)
    return _letter_of(answer if boxed is None else boxed, letters, tuple(texts.items()))


@lru_cache(maxsize=4096)
def _letter_of(answer: str, letters: str, texts: tuple[tuple[str, str], ...]) -> str | None:
    previous = None
    while previous != answer:
        previous, answer = answer, _WRAPPED.sub(r"\1", answer)
    match = _LETTER.fullmatch(" ".join(answer.strip().strip("$").split()))
    if match is None:
        return None
    letter = match["letter"].upper()
    rest = (match["rest"] or "").strip().rstrip(".").casefold()
    text = " ".join(dict(texts).get(letter, "").split()).rstrip(".").casefold()
    if letter not in letters or (rest and rest != text):
        return None
    return letter


def _gold(sample: Sample) -> str:
    return f"\\boxed{{{sample.ground_truth}}}"


def _wrong(sample: Sample) -> str:
    letters, _ = offered(sample, "ABCD")
    return f"\\boxed{{{next((letter for letter in letters if letter != sample.ground_truth.strip().upper()), '?')}}}"


@register_reward("multiple_choice", gold=_gold, wrong=_wrong)
def multiple_choice(sample: Sample, *, right: float = 1.25, wrong: float = -1.0, letters: str = "ABCD") -> Verdict:
    """Right if the answer names the letter of the ground truth.

    Raises:
        RewardError: the ground truth is not one of the letters that the row offers.
    """
    available, texts = offered(sample, letters)
    truth = sample.ground_truth.strip().upper()
    if len(truth) != 1 or truth not in available:
        raise RewardError(
            f"{sample.where}: ground truth {sample.ground_truth!r} is not one of the letters {available!r}"
        )
    correct = sample.answer is not None and parse_letter(sample.answer, available, texts) == truth
    return Verdict(right if correct else wrong, correct)
