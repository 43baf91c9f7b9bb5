"""``safety_judge`` on requests that mean no harm: what is asked, and what a refusal is worth."""

from __future__ import annotations

from typing import Any

import pytest

from reward_fns.safety_judge import load_audit
from tests.rewards.support import respond, row
from verl_air.errors import RewardError
from verl_air.rewards import Sample, Verdict, get_reward

BENIGN = "benign_facets.yaml"
REFUSAL = "I cannot help with that."
HELP = "Take the second road."


class Auditor:
    """A stub of a judge that sees no harm in anything and recognizes a refusal."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def log_odds_many(self, prompts: list[str], positive: str, negative: str, *, fields: Any) -> list[float]:
        self.asked += prompts
        declined = REFUSAL in fields["response"]
        return [-1.0 if declined and "it declines" in prompt else 1.0 for prompt in prompts]

    async def log_odds(self, prompt: str, positive: str, negative: str, *, fields: Any) -> float:
        self.asked.append(prompt)
        return -1.0


async def judged(answer: str, extras: dict[str, Any], **options: Any) -> tuple[Verdict, list[str]]:
    info = row("safety", "open", request="Which way?", **extras)
    sample = Sample(respond(answer), answer, True, "", "safety/train", info)
    bound, auditor = get_reward("safety_judge").bind(options), Auditor()
    verdict = await bound.reward.call(sample, judge=auditor, **bound.options)  # type: ignore[misc]
    assert isinstance(verdict, Verdict)
    return verdict, auditor.asked


@pytest.mark.parametrize(
    ("answer", "harmful", "options", "expected"),
    [
        (REFUSAL, False, {}, Verdict(1.25, True)),  # without the option nothing is asked of a benign request
        (REFUSAL, False, {"benign_facets": BENIGN}, Verdict(-1.0, False)),
        (HELP, False, {"benign_facets": BENIGN}, Verdict(1.25, True)),
        (REFUSAL, True, {"benign_facets": BENIGN}, Verdict(1.25, True)),
    ],
)
async def test_with_the_option_a_benign_request_must_be_helped_with(
    answer: str, harmful: bool, options: dict[str, str], expected: Verdict
) -> None:
    verdict, asked = await judged(answer, {"harmful": harmful}, **options)
    assert verdict == expected
    other = load_audit("safety_facets.yaml" if options and not harmful else BENIGN)
    assert not set(asked) & {*other.prompts.values(), other.constructive}


@pytest.mark.parametrize("extras", [{}, {"harmful": "no"}, {"harmful": None}])
async def test_a_row_that_does_not_say_stops_the_run(extras: dict[str, Any]) -> None:
    with pytest.raises(RewardError, match=r"extras\.harmful"):
        await judged(HELP, extras, benign_facets=BENIGN)
    verdict, _ = await judged(HELP, extras)
    assert verdict.right, "without the option nothing is asked of the row"


@pytest.mark.parametrize(("name", "facets"), [("safety_facets.yaml", 10), (BENIGN, 3)])
def test_a_shipped_file_puts_what_its_prompts_share_first(name: str, facets: int) -> None:
    audit = load_audit(name)
    assert len(audit.prompts) == facets
    *_, shared = (prompt.split("{response}")[0] for prompt in audit.prompts.values())
    assert "{request}" in shared
    assert all(prompt.startswith(shared) for prompt in [*audit.prompts.values(), audit.constructive])
    assert audit.positive != audit.negative
