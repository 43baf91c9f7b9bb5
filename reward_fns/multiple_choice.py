r"""``multiple_choice``: the answer is the letter of one option, and nothing else.

Read strictly, since an anchor must be beyond doubt. What `reward_fns.answer_text` calls decoration is taken off; the
letter may also come before the very text of its option ("B. London"). Two letters ("A or B"), a negation ("not B"), a
hedge ("B?"), a letter that was not offered, another option's text ("B. Paris"), a letter that only begins a word or a
sentence ("E. coli", "A car"), and look-alikes of other alphabets are no answer.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from string import ascii_uppercase

from reward_fns.answer_text import LABEL, MAX_CHARS, final_answer, plain, undress
from verl_air.rewards import RewardError, Sample, Verdict, register_reward

_MARKS = str.maketrans("", "", "*_`$")
_LATEX = re.compile(
    r"\\(?:[()\[\],;:!]|q?quad(?![A-Za-z])|left(?![A-Za-z])|right(?![A-Za-z])|\\)|(?!\A)(?<![\\~])~(?!~)"
)
_LETTER = re.compile(
    rf"(?:(?i:{LABEL}) ?[:\uff1a=]? ?){{0,3}}[(\[{{<\uff08\uff3b\u3010\u300c\"\u201c]*(?P<letter>[A-Za-z])(?!\w)"
    r"[)\]}>\uff09\uff3d\u3011\u300d\"\u201d]*[.,:;!\u3002\uff0e\u3001\uff0c\uff1a\uff1b]?[)\]\"]*"
    r"(?: ?[-\u2013\u2014=|:](?= ))?(?P<rest>[ \n(\uff08\"\u201c].*|(?<=[.:)\u3002\u3001\uff1a\uff09\u3011]).*)?",
    re.DOTALL,
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


@lru_cache(maxsize=4096)
def parse_letter(answer: str, letters: str, texts: tuple[tuple[str, str], ...]) -> str | None:
    """The one offered letter that an answer names, or ``None``; ``texts``: pairs of letter and text."""
    found = final_answer(answer)
    if not found:
        return None
    lines = [_flat(line) for line in undress(found).splitlines()]
    match = _LETTER.fullmatch("\n".join(line for line in lines if line))
    if match is None or (letter := match["letter"].upper()) not in letters:
        return None
    rest, text = (match["rest"] or "").strip(), dict(texts).get(letter, "")
    return letter if not rest or _flat(undress(rest)).casefold() == _flat(undress(text)).casefold() else None


def _flat(text: str) -> str:
    """A text without any mark, on one line."""
    text = plain(text).translate(_MARKS)
    return " ".join((_LATEX.sub(" ", text) if "\\" in text or "~" in text else text).split())


def _wrong(sample: Sample) -> str:
    letters, _ = offered(sample, "ABCD")
    return f"\\boxed{{{next((letter for letter in letters if letter != sample.ground_truth.strip().upper()), '?')}}}"


@register_reward("multiple_choice", gold=lambda sample: f"\\boxed{{{sample.ground_truth}}}", wrong=_wrong)
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
    answer = sample.answer if sample.answer is not None and len(sample.answer) <= MAX_CHARS else ""
    correct = parse_letter(answer, available, tuple(texts.items())) == truth
    return Verdict(right if correct else wrong, correct)
