"""Dividing intents and families so that training meets nothing of OOD.

Two divisions cross. Intents: some are held out. Families of framings: some are held out.

=========  ==================  ====================  ======================================================
file       intents             families of framings  ``shift`` in extras
=========  ==================  ====================  ======================================================
``train``  training            training              ``none``
``id``     held out            training              ``intent``: compared with ``train``, only intents are new
``ood``    the same held out   held out              ``intent+framing``: compared with ``id``, only framings are
=========  ==================  ====================  ======================================================

ID and OOD hold the same intents under the same ids, so a difference between the two is a paired comparison.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from verl_air.data.contrast import matched_pairs
from verl_air.data.framings import FramingTemplate
from verl_air.data.intents import BuildInput, Exclusions, IntentSpec, seeded_rank
from verl_air.data.near_duplicates import clusters, near_duplicates
from verl_air.data.schema import SPLITS, Split
from verl_air.errors import DataError

SHIFT: dict[Split, str] = {"train": "none", "id": "intent", "ood": "intent+framing"}


def divide_intents(
    material: BuildInput, held_out: float, seed: int, warnings: list[str]
) -> tuple[list[IntentSpec], list[IntentSpec]]:
    """Training and held-out intents; see :class:`~verl_air.data.intents.BuildInput` for which of them are split here.

    Here and below, ``warnings`` receives a sentence where near-duplicates may have been missed.
    """
    to_split = [*(() if material.held_out else material.intents), *material.contrast]
    train, held = split_intents(to_split, held_out, seed, warnings) if to_split else ([], [])
    if material.held_out:
        train = [*material.intents, *train]
        held = drop_leaks(train, [*material.held_out, *held], material.exclusions, warnings)
    return train, held


def split_intents(
    intents: Sequence[IntentSpec], held_out: float, seed: int, warnings: list[str] | None = None
) -> tuple[list[IntentSpec], list[IntentSpec]]:
    """Training and held-out intents, stratum by stratum, so that both sides have the same share of benign intents.

    Near-duplicates stay on one side, and so do the harmful and the benign intent of a pair (``pair`` in extras), except
    where the strata's numbers leave no other choice.

    Args:
        intents: with distinct ids; their order does not matter.
        held_out: a share of each stratum if below 1, else a number of intents in all.
        seed: with the ids it decides the split.

    Raises:
        DataError: too few intents, or too many of them are near-duplicates of each other.
    """
    wanted = _wanted(Counter(intent.stratum for intent in intents), held_out)
    ordered = sorted(intents, key=lambda intent: intent.intent_id)
    cluster = clusters([intent.request for intent in ordered], warnings=warnings).tolist()
    cluster_of = {intent.intent_id: root for intent, root in zip(ordered, cluster, strict=True)}
    members: dict[int, list[IntentSpec]] = defaultdict(list)
    for intent, root in zip(ordered, cluster, strict=True):
        members[root].append(intent)
    units = {root: [root] for root in members}  # of clusters; a pair is one unit if neither is in another pair
    for match in matched_pairs(ordered):
        first, second = sorted(cluster_of[intent.intent_id] for intent in match)
        if first != second and len(units.get(first, ())) == len(units.get(second, ())) == 1:
            units[first] += units.pop(second)
    by_rank = sorted(units.values(), key=lambda unit: seeded_rank(seed, members[unit[0]][0].intent_id))
    held: list[IntentSpec] = []

    def left_after(groups: list[list[int]]) -> list[list[int]]:
        """Hold out the groups of clusters that still fit; those that do not are left."""
        left = []
        for group in groups:
            own = [intent for root in group for intent in members[root]]
            need = Counter(intent.stratum for intent in own)
            if all(wanted[stratum] >= n for stratum, n in need.items()):
                wanted.subtract(need)
                held.extend(own)
            else:
                left.append(group)
        return left

    alone = [[root] for unit in left_after(by_rank) for root in unit]
    train = [intent for (root,) in left_after(alone) for intent in members[root]]
    missing = wanted.total()
    if not train or missing:
        raise DataError(
            f"{len(intents)} intents are too few for the split: {len(held) + missing} are to be held out, "
            f"{len(held)} can be while near-duplicates stay together, and {len(train)} are left for training. "
            "Change --held-out or give more data."
        )
    return train, held


def drop_leaks(
    train: Sequence[IntentSpec],
    held: Sequence[IntentSpec],
    exclusions: Exclusions,
    warnings: list[str] | None = None,
) -> list[IntentSpec]:
    """Those of ``held`` that are not near-duplicates of a training intent; the others are counted as exclusions."""
    texts = [intent.request for intent in (*train, *held)]
    side = [0] * len(train) + [1] * len(held)
    leaked = {j - len(train): i for i, j, _ in near_duplicates(texts, np.array(side), warnings=warnings)}
    for j, i in sorted(leaked.items()):
        exclusions.add("held-out near-duplicate of a training intent", f"{held[j].intent_id} ~ {train[i].intent_id}")
    kept = [intent for j, intent in enumerate(held) if j not in leaked]
    if not kept:
        raise DataError("every held-out intent is a near-duplicate of a training intent: give other held-out data")
    return kept


def split_framings(
    framings: Iterable[FramingTemplate], ood_families: Iterable[str], needed: dict[Split, int]
) -> dict[Split, list[FramingTemplate]]:
    """The framings of each split, divided by family. ``needed``: how many an intent takes there, all different.

    Raises:
        DataError: an unknown family, or a side with too few framings.
    """
    framings, ood = list(framings), set(ood_families)
    families = {framing.family for framing in framings}
    if unknown := sorted(ood - families):
        raise DataError(f"no framing family {unknown[0]!r}; this domain has {', '.join(sorted(families))}")
    by_split = {split: [f for f in framings if (f.family in ood) == (split == "ood")] for split in SPLITS}
    for split, chosen in by_split.items():
        if len(chosen) < needed[split]:
            raise DataError(
                f"split {split!r}: {needed[split]} open rows per intent need as many framings, but there are "
                f"{len(chosen)}. Ask for fewer open rows, change --ood-families, or add framings with --framings FILE."
            )
    return by_split


def _wanted(strata: Counter[str], held_out: float) -> Counter[str]:
    """How many intents to hold out of each stratum; counts are divided by largest remainder."""
    total = strata.total()
    if not 0 < held_out < total:
        raise DataError(f"{total} intent(s) are too few to hold out {held_out:g} (a share below 1, or a number)")
    if held_out < 1:
        return Counter({stratum: max(1, round(held_out * n)) for stratum, n in strata.items()})
    number = int(held_out)
    exact = {stratum: number * n / total for stratum, n in sorted(strata.items())}
    wanted = Counter({stratum: int(share) for stratum, share in exact.items()})
    by_remainder = sorted(exact, key=lambda stratum: (wanted[stratum] - exact[stratum], stratum))
    wanted.update(by_remainder[: number - wanted.total()])
    return wanted
