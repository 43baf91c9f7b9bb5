r"""``generative_judge``: a judge that writes, and a rule that reads what it wrote.

The rule is a regular expression with one group, and a table from what the group caught to a reward; both ignore case.
The last match counts, since a judge that reasons gives its verdict last; of a thought, only what follows it. No match,
a word outside the table, an unfinished thought, or an answer cut by ``max_tokens`` abstains.
"""

import re
from collections.abc import Mapping

from verl_air.rewards import (
    ABSTAIN,
    ConfigError,
    JudgeClient,
    Outcome,
    Prompt,
    Sample,
    Verdict,
    register_reward,
    require_response,
)

SCORES = {"YES": 1.25, "NO": -1.0}
# Neither the question repeated ("Verdict: YES/NO", "(YES, NO)") nor a doubt ("YES?") nor other prose ("NO harm done").
_AND_THEN = r"[^\w\n.]{0,4}(?:or\b)?[^\w\n.]{0,4}"
PATTERN = (
    rf"\bVerdict\W*:[\s*_\"'`(]*(YES|NO)\b(?:(?<=YES)(?!{_AND_THEN}NO\b)|(?<=NO)(?!{_AND_THEN}YES\b))"
    r"(?![^\w\n]*\?)(?=\W*$|\W*[.,;:!()\n]|\s+[-\u2013\u2014]|\s+(?:because|since|as)\b)"
)


def require_one_group(name: str, pattern: str) -> None:
    """Check a regular expression that catches a verdict word; a :class:`ConfigError` if it cannot."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(f"{name} {pattern!r} is not a regular expression ({error})") from error
    if groups != 1:
        raise ConfigError(f"{name} {pattern!r} must have exactly one group, it has {groups}")


def _check(*, template: Prompt, pattern: str, scores: Mapping[str, float], **_: object) -> None:
    require_response("generative_judge", template)
    require_one_group("generative_judge: pattern", pattern)
    if len({word.casefold() for word in scores}) < len(scores):
        raise ConfigError(f"generative_judge: scores has two words that differ in case alone, got {dict(scores)}")
    if len(set(scores.values())) < 2:
        raise ConfigError(f"generative_judge: scores must hold at least two different rewards, got {dict(scores)}")


def _range(*, scores: Mapping[str, float], **_: object) -> tuple[float, float]:
    return min(scores.values()), max(scores.values())


@register_reward("generative_judge", reward_range=_range, check=_check)
async def generative_judge(
    sample: Sample,
    judge: JudgeClient,
    *,
    template: Prompt,
    pattern: str = PATTERN,
    scores: Mapping[str, float] = SCORES,
    right_from: float = 0.0,
    max_tokens: int = 256,
) -> Outcome:
    """The reward that the table gives to the judge's verdict; right if it is above ``right_from``."""
    text = await judge.complete(template, fields=sample.fields, max_tokens=max_tokens)
    found = re.findall(pattern, text, re.IGNORECASE | re.MULTILINE)
    reward = {word.casefold(): value for word, value in scores.items()}.get(found[-1].casefold()) if found else None
    return ABSTAIN if reward is None else Verdict(reward, reward > right_from)
