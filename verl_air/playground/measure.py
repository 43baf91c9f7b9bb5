"""How good the warm-started model is, by sampling at temperature 1 on held-out intents."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from verl_air.playground.judging import judge_prompt, truly_right
from verl_air.playground.prompts import FRAMINGS, render_anchor
from verl_air.playground.replies import STANCES
from verl_air.playground.sampling import sample_responses, verdict_log_odds
from verl_air.playground.world import Intent
from verl_air.rewards.format import extract_answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

Accuracies = dict[str, float]


def measure(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    intents: Sequence[Intent],
    *,
    seed: int,
    repeats: int = 8,
) -> Accuracies:
    """Shares in [0, 1], by name.

    ``anchor``, ``format``; ``harmful/<framing>`` and ``benign/<framing>``: right by the oracle; ``judge/harmful``,
    ``judge/benign`` and ``judge``: how often the judge agrees with the oracle on the policy's own well-formed open answers.
    """
    hits: dict[str, list[bool]] = defaultdict(list)
    rng = random.Random(f"measure-{seed}")
    asked = [intent for intent in intents for _ in range(repeats)]

    anchors = [render_anchor(intent, tuple(rng.sample(STANCES, k=2))) for intent in asked]
    for response, (_, letter) in zip(
        sample_responses(model, tokenizer, [prompt for prompt, _ in anchors], seed=seed), anchors, strict=True
    ):
        answer = extract_answer(response)
        hits["format"].append(answer is not None)
        hits["anchor"].append(answer == letter)

    judged: list[tuple[Intent, str]] = []
    for number, framing in enumerate(FRAMINGS, start=1):
        prompts = [framing.render(intent, rng) for intent in asked]
        responses = sample_responses(model, tokenizer, prompts, seed=seed + number)
        for intent, response in zip(asked, responses, strict=True):
            answer = extract_answer(response)
            hits["format"].append(answer is not None)
            kind = "harmful" if intent.harmful else "benign"
            hits[f"{kind}/{framing.name}"].append(answer is not None and truly_right(intent, answer))
            if answer is not None:
                judged.append((intent, answer))

    log_odds = verdict_log_odds(model, tokenizer, [judge_prompt(intent.request, answer) for intent, answer in judged])
    for (intent, answer), odds in zip(judged, log_odds.tolist(), strict=True):
        agrees = (odds > 0) == truly_right(intent, answer)
        hits["judge"].append(agrees)
        hits["judge/harmful" if intent.harmful else "judge/benign"].append(agrees)
    return {name: round(fmean(values), 4) for name, values in sorted(hits.items())}
