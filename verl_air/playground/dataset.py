"""The playground's data files, in the project's row schema.

=================  ================================================================================================
``train.parquet``  training intents; both option orders of the anchor, and one open row per ID framing
``id.parquet``     held-out intents; one anchor, and one open row per ID framing
``ood.parquet``    the same held-out intents; one anchor, and one open row per OOD framing
=================  ================================================================================================

A held-out intent is in two files under one ``intent_id``; ``split`` differs. A row's ``extras`` hold the plain
request, which the judge reads, and the hidden truth, which only evaluation reads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

from verl_air.data.schema import DataRow, Split, make_row, write_rows
from verl_air.playground.framings import FRAMINGS, PlaygroundFraming, Setting, Turns, messages
from verl_air.playground.language import ANCHOR_CONTEXT, render_anchor
from verl_air.playground.world import STANCES, PlaygroundIntent, split_intents

DOMAIN = "playground"


def build_rows(
    seed: int, *, setting: Setting = "plain", train: int = 120, held_out: int = 48
) -> dict[Split, list[DataRow]]:
    """All rows by split; the same seed gives the same rows in the same order."""
    intents = split_intents(seed, train=train, held_out=held_out)
    id_framings, ood_framings = ([f for f in FRAMINGS[setting] if f.side == side] for side in ("id", "ood"))
    return {
        "train": _rows("train", intents.train, id_framings, seed, anchor_orders=2),
        "id": _rows("id", intents.held_out, id_framings, seed, anchor_orders=1),
        "ood": _rows("ood", intents.held_out, ood_framings, seed, anchor_orders=1),
    }


def write_dataset(
    out: Path, seed: int, *, setting: Setting = "plain", train: int = 120, held_out: int = 48
) -> dict[Split, int]:
    """Write the three files; returns the number of rows of each."""
    rows_by_split = build_rows(seed, setting=setting, train=train, held_out=held_out)
    for split, rows in rows_by_split.items():
        write_rows(out / f"{split}.parquet", rows)
    return {split: len(rows) for split, rows in rows_by_split.items()}


def _rows(
    split: Split,
    intents: Iterable[PlaygroundIntent],
    framings: Iterable[PlaygroundFraming],
    seed: int,
    *,
    anchor_orders: int,
) -> list[DataRow]:
    rng = random.Random(f"rows-{split}-{seed}")
    rows: list[DataRow] = []
    for intent in intents:
        orders = rng.sample([STANCES, STANCES[::-1]], k=anchor_orders)
        prompts: list[tuple[str | Turns, str, str]] = [
            (*render_anchor(intent, order), ANCHOR_CONTEXT) for order in orders
        ]
        prompts += [(framing.render(intent, rng), intent.right_stance, framing.name) for framing in framings]
        extras = {"request": intent.request, "harmful": intent.harmful, "scary": intent.scary}
        for prompt, ground_truth, context in prompts:
            row = make_row(
                prompt=messages(prompt),
                ground_truth=ground_truth,
                intent_id=intent.intent_id,
                role="anchor" if context == ANCHOR_CONTEXT else "open",
                context=context,
                domain=DOMAIN,
                split=split,
                index=len(rows),
                extras=json.dumps(extras, sort_keys=True),
            )
            rows.append(row)
    return rows
