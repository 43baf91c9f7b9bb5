"""Whether harmful and benign intents differ by more than something trivial, and how many of each are kept.

A model must not learn to decline by the length of a request, or by its first word. Each trivial feature is taken for a
classifier and measured by its balanced accuracy (0.5: tells nothing). Over the thresholds of a feature the best is
``(1 + D) / 2`` with D the greatest distance of the two distributions (Kolmogorov-Smirnov). With 20 intents of each
kind, chance reaches 0.8 in one of 500 cases, so fewer are not judged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from verl_air.data.intents import Exclusions, IntentSpec, seeded_rank
from verl_air.errors import DataError

FEW_BENIGN = 0.2
TELLING = 0.8
_LEAST = 20
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")  # Latin, full-width, Arabic


def contrast_warnings(harmful: Sequence[str], benign: Sequence[str]) -> list[str]:
    """What is wrong with the contrast between the requests of a file's harmful and benign intents; best nothing."""
    total = len(harmful) + len(benign)
    warnings = []
    if total and len(benign) < FEW_BENIGN * total:
        warnings.append(
            f"{len(benign)} of {total} intents are benign ({len(benign) / total:.0%}, less than {FEW_BENIGN:.0%}): a "
            "model that always refuses looks good. Add some with --benign, or set --benign-share."
        )
    if min(len(harmful), len(benign)) >= _LEAST:
        for feature, accuracy in trivial_features(harmful, benign).items():
            if accuracy > TELLING:
                warnings.append(
                    f"{feature} alone separates harmful from benign intents (balanced accuracy {accuracy:.2f}, more "
                    f"than {TELLING}): give benign requests of the same shape, such as XSTest's or JailbreakBench's."
                )
    return warnings


def trivial_features(harmful: Sequence[str], benign: Sequence[str]) -> dict[str, float]:
    """Balanced accuracy of telling the two kinds, neither of them empty, apart by one feature at its best threshold."""
    words = [Counter((text.split() or [""])[0].casefold() for text in texts) for texts in (harmful, benign)]
    distances = {
        word: abs(words[0][word] / len(harmful) - words[1][word] / len(benign)) for word in sorted(words[0] | words[1])
    }
    word = max(distances, key=lambda word: distances[word])
    asked = [np.mean([text.rstrip().endswith(_QUESTION_MARKS) for text in texts]) for texts in (harmful, benign)]
    lengths = [np.sort([len(text) for text in texts]) for texts in (harmful, benign)]
    below = [np.searchsorted(own, np.concatenate(lengths), side="right") / len(own) for own in lengths]
    distance = {
        "the length": np.abs(below[0] - below[1]).max(),
        "the question mark at the end": abs(asked[0] - asked[1]),
        f"the first word {word!r}": distances[word],
    }
    return {feature: float(1 + d) / 2 for feature, d in distance.items()}


def matched_pairs(intents: Sequence[IntentSpec]) -> list[tuple[IntentSpec, IntentSpec]]:
    """Harmful and benign intents of one ``pair`` in extras, each in one pair at most, in the order given.

    A pair key may cover one intent of each kind (JailbreakBench's index) or a topic with many (OR-Bench's category).
    """
    by_key: dict[str, dict[str, list[IntentSpec]]] = defaultdict(lambda: defaultdict(list))
    for intent in intents:
        if pair := intent.extras.get("pair"):
            by_key[pair][intent.stratum].append(intent)
    return [match for kinds in by_key.values() for match in zip(kinds["harmful"], kinds["benign"], strict=False)]


def with_benign_share(
    intents: Sequence[IntentSpec], share: float, seed: int, exclusions: Exclusions
) -> list[IntentSpec]:
    """As many intents as possible of which ``share`` are benign; paired ones are kept first, then the seed decides.

    Raises:
        DataError: there is no harmful or no benign intent.
    """
    ordered = sorted(intents, key=lambda intent: seeded_rank(seed, intent.intent_id))
    paired = {intent.intent_id for match in matched_pairs(ordered) for intent in match}
    ordered.sort(key=lambda intent: intent.intent_id not in paired)
    kinds = {kind: [z for z in ordered if z.stratum == kind] for kind in ("harmful", "benign")}
    if empty := [kind for kind, members in kinds.items() if not members]:
        raise DataError(f"--benign-share {share:g}: a split has no {empty[0]} intent; give some, or omit the option")
    n_harmful, n_benign = (len(members) for members in kinds.values())
    keep = {
        "harmful": min(n_harmful, max(1, round(n_benign * (1 - share) / share))),
        "benign": min(n_benign, max(1, round(n_harmful * share / (1 - share)))),
    }
    for kind, members in kinds.items():
        for intent in members[keep[kind] :]:
            exclusions.add(f"{kind}: more than --benign-share {share:g} takes", intent.intent_id)
    kept = {intent.intent_id for kind, members in kinds.items() for intent in members[: keep[kind]]}
    return [intent for intent in intents if intent.intent_id in kept]
