"""``verdict_judge``: one question to a served judge, answered by the log-odds of two words.

The template may use ``{response}``, ``{answer}``, ``{ground_truth}`` and every key of the row's extras. None of these
is trusted. A template that uses ``{answer}`` gives a badly formatted response no credit, without asking.
"""

from verl_air.rewards import (
    JudgeClient,
    Prompt,
    Rendering,
    Sample,
    Verdict,
    fields_of,
    register_reward,
    require_response,
)


def _check(*, template: Prompt, **_: object) -> None:
    require_response("verdict_judge", template)


@register_reward("verdict_judge", check=_check)
async def verdict_judge(
    sample: Sample,
    judge: JudgeClient,
    *,
    template: Prompt,
    positive: str = "YES",
    negative: str = "NO",
    threshold: float = 0.0,
    chat: bool = True,
    right: float = 1.25,
    wrong: float = -1.0,
) -> Verdict:
    """Right if log P(positive) - log P(negative) is above the threshold (nats)."""
    if sample.answer is None and "answer" in fields_of(template):
        return Verdict(wrong, False)
    odds = await judge.log_odds(template, positive, negative, fields=sample.fields, how=Rendering(chat=chat))
    return Verdict(right if odds > threshold else wrong, odds > threshold)
