"""A whole build: intents in, ``train.parquet``, ``id.parquet``, ``ood.parquet`` and ``manifest.json`` out."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from verl_air.data.anchors import AnchorFormat, BalancedPositions, get_anchor_format
from verl_air.data.check.contents import prompt_limit
from verl_air.data.contrast import contrast_warnings, with_benign_share
from verl_air.data.framings import (
    OOD_FAMILIES,
    FramingTemplate,
    choose_framings,
    framings_for,
    ood_families,
    with_instruction,
)
from verl_air.data.intents import BuildInput, Exclusions, IntentSpec, seeded, seeded_rank
from verl_air.data.schema import SCHEMA_VERSION, SPLITS, DataRow, PromptMessage, Split, make_row, write_rows
from verl_air.data.splits import SHIFT, divide_intents, split_framings
from verl_air.errors import DataError
from verl_air.rewards import STYLES, Style

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class BuildOptions:
    """How meta-groups are made.

    seed: the same seed and data give the same bytes.
    held_out: share (below 1) or number of intents for ID and OOD, if no separate file holds them.
    anchors, open_: rows per intent in ID and OOD; the paper's m and n [open in the paper].
    train_anchors, train_open: rows per training intent; more than a visit takes, so that visits differ.
    formats: anchor formats, by name.
    style: the response style that prompts ask for; the recipe's ``format.style``.
    ood_families: families of framings that training never meets.
    max_prompt_length: ``data.max_prompt_length`` of the recipe, in tokens; no row is longer.
    tokenizer: folder or hub name to count tokens with; without it a token is taken for three bytes of UTF-8.
    benign_share: of every split's intents (safety); None keeps all.
    """

    seed: int = 0
    held_out: float = 0.2
    anchors: int = 1
    open_: int = 3
    train_anchors: int = 2
    train_open: int = 6
    formats: tuple[str, ...] = ("multiple_choice",)
    style: Style = "think_answer"
    ood_families: tuple[str, ...] = tuple(sorted(OOD_FAMILIES))
    max_prompt_length: int = 2048
    tokenizer: str | None = None
    benign_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("anchors", "open_", "train_anchors", "train_open"):
            if getattr(self, name) < 1:
                raise DataError(f"{name.rstrip('_')} must be at least 1, got {getattr(self, name)}")
        if self.train_anchors < self.anchors or self.train_open < self.open_:
            raise DataError("a training intent needs at least as many anchors and open rows as a visit takes")
        if self.benign_share is not None and not 0 < self.benign_share < 1:
            raise DataError(f"--benign-share must be between 0 and 1, got {self.benign_share:g}")
        if self.style not in STYLES:
            raise DataError(f"--style {self.style}: must be one of {', '.join(STYLES)}")
        if not self.formats:
            raise DataError("at least one anchor format is needed")

    def rows_per_intent(self, split: Split) -> tuple[int, int]:
        """Anchors and open rows of an intent."""
        return (self.train_anchors, self.train_open) if split == "train" else (self.anchors, self.open_)


def build(material: BuildInput, options: BuildOptions, out: Path) -> dict[str, Any]:
    """Write the three files and the manifest, which is returned.

    Everything is written to a temporary folder inside ``out`` and then moved, the manifest last: no file is ever
    half-written.

    Raises:
        DataError: too few intents or framings, an unknown format or family, or ``out`` is a file.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: --out must be a folder")
    warnings: list[str] = []
    intents = divide_intents(material, options.held_out, options.seed, warnings)
    needed: dict[Split, int] = {split: options.rows_per_intent(split)[1] for split in SPLITS}
    found = framings_for(material.domain)
    framings = split_framings(found, ood_families(found, options.ood_families, options.seed), needed)
    formats = [get_anchor_format(name) for name in options.formats]
    out.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=out))
    try:
        counts: dict[str, Any] = {}
        fits = prompt_limit(options.max_prompt_length, options.tokenizer)
        renderers = {split: _Renderer(material, options, split, formats, framings[split], fits) for split in SPLITS}
        intents = _without_short(intents, renderers, options, material.exclusions)
        if (share := options.benign_share) is not None:
            both = (intents["train"], intents["id"])
            train, held = (with_benign_share(own, share, options.seed, material.exclusions) for own in both)
            intents = {"train": train, "id": held, "ood": held}
        for split, renderer in renderers.items():
            tally = {name: Counter[str]() for name in ("role", "family", "context")}
            rows = tqdm(
                renderer.rows(intents[split]), split, renderer.rows_of(intents[split]), leave=False, disable=None
            )
            path = write_rows(temporary / f"{split}.parquet", _tallied(rows, tally))
            counts[split] = {
                "intents": len(intents[split]),
                "rows": tally["role"].total(),
                "roles": dict(sorted(tally["role"].items())),
                "families": dict(sorted(tally["family"].items())),
                "contexts": dict(sorted(tally["context"].items())),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        manifest = _manifest(material, options, counts, [*warnings, *_contrast(intents)])
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for name in (*(f"{split}.parquet" for split in SPLITS), MANIFEST):
            os.replace(temporary / name, out / name)
    finally:
        shutil.rmtree(temporary)
    return manifest


def _without_short(
    intents: dict[Split, Sequence[IntentSpec]],
    renderers: dict[Split, _Renderer],
    options: BuildOptions,
    exclusions: Exclusions,
) -> dict[Split, Sequence[IntentSpec]]:
    """The intents that the prompt limit leaves enough rows; ID and OOD keep the same ones."""
    short = {
        intent.intent_id
        for split, own in intents.items()
        for intent in own
        if not renderers[split].has_enough(intent, options.open_)
    }
    for intent_id in sorted(short):
        reason = f"prompts above {options.max_prompt_length} tokens leave fewer rows than a visit takes"
        exclusions.add(reason, intent_id)
    left = {split: [intent for intent in own if intent.intent_id not in short] for split, own in intents.items()}
    if empty := [split for split, own in left.items() if not own]:
        raise DataError(
            f"split {empty[0]!r}: no intent fits --max-prompt-length {options.max_prompt_length}: raise it (and "
            "data.max_prompt_length of the recipe) or leave the long framings out"
        )
    return dict(left)


def _contrast(intents: dict[Split, Sequence[IntentSpec]]) -> list[str]:
    """Warnings about harmful and benign intents; ID and OOD hold the same ones."""
    found = []
    for name, own in (("train", intents["train"]), ("id, ood", intents["id"])):
        kinds = ([z.request for z in own if z.stratum == kind] for kind in ("harmful", "benign"))
        found += [f"{name}: {warning}" for warning in contrast_warnings(*kinds)]
    return found


class _Renderer:
    """From the intents of one split to rows: which anchors and which framings an intent gets, and in what words."""

    def __init__(
        self,
        material: BuildInput,
        options: BuildOptions,
        split: Split,
        formats: Sequence[AnchorFormat],
        framings: Sequence[FramingTemplate],
        fits: Callable[[list[PromptMessage]], bool],
    ) -> None:
        self._fits = fits
        self._domain, self._answer, self._style = material.domain, material.answer, options.style
        self._instruct = partial(with_instruction, domain=self._domain, style=options.style)
        self._seed, self._split, self._formats, self._framings = options.seed, split, formats, framings
        self._n_anchors, self._n_open = options.rows_per_intent(split)
        self._positions = BalancedPositions(seeded(options.seed, split, "positions"))

    def rows_of(self, intents: Sequence[IntentSpec]) -> int:
        """How many rows the intents give."""
        return len(intents) * (self._n_anchors + self._n_open)

    def rows(self, intents: Sequence[IntentSpec]) -> Iterator[DataRow]:
        """All rows, intent by intent; their order and content depend on the seed and the intents alone.

        Raises:
            DataError: an intent cannot have as many different anchors, or a framing names an unknown slot.
        """
        index = 0
        for number, intent in enumerate(sorted(intents, key=lambda z: seeded_rank(self._seed, z.intent_id))):
            rng = seeded(self._seed, self._split, intent.intent_id)
            for row in (*self._anchors(intent, number, rng), *self._open(intent, rng)):
                row["extra_info"]["index"] = index
                index += 1
                yield row

    def _anchors(self, intent: IntentSpec, number: int, rng: random.Random) -> Iterator[DataRow]:
        used: dict[str, set[int]] = defaultdict(set)
        for k in range(self._n_anchors):
            # Intents start with different formats, so that one anchor per intent still uses all formats.
            chosen = self._formats[(number + k) % len(self._formats)]
            n = chosen.positions(intent.question)
            if len(used[chosen.name]) == n:
                raise DataError(
                    f"intent {intent.intent_id}: {self._n_anchors} anchors cannot differ: format {chosen.name!r} has "
                    f"{n} answer positions here. Ask for fewer anchors or for more formats."
                )
            position = self._positions.draw((chosen.name, intent.stratum), n)
            while position in used[chosen.name]:
                position = (position + 1) % n
            used[chosen.name].add(position)
            anchor = chosen.render(intent.question, position, rng)
            yield self._row(
                intent,
                prompt=self._instruct(anchor.text, anchor.what),
                ground_truth=anchor.ground_truth,
                role="anchor",
                context=chosen.name,
                family="anchor",
                extras={"verifier": chosen.verifier, **({"choices": anchor.choices} if anchor.choices else {})},
            )

    def has_enough(self, intent: IntentSpec, visit: int) -> bool:
        """Whether an intent has as many open rows within the prompt limit as a visit takes, and anchors at all."""
        chosen = (anchor_format.render(intent.question, 0, random.Random(0)) for anchor_format in self._formats)
        anchors = (self._instruct(anchor.text, anchor.what) for anchor in chosen)
        return (
            all(map(self._fits, anchors)) and len(list(islice(self._prompts(intent, random.Random(0)), visit))) == visit
        )

    def _prompts(self, intent: IntentSpec, rng: random.Random) -> Iterator[tuple[FramingTemplate, list[PromptMessage]]]:
        """The intent in all framings, in the order in which it takes them, as far as they are within the limit."""
        slots = {"request": intent.request, **intent.slots}
        for framing in choose_framings(self._framings, len(self._framings), rng):
            prompt = self._instruct(framing.render(slots), self._answer)
            if self._fits(prompt):
                yield framing, prompt

    def _open(self, intent: IntentSpec, rng: random.Random) -> Iterator[DataRow]:
        row = partial(self._row, intent, role="open", ground_truth=intent.ground_truth, extras={})
        for framing, prompt in islice(self._prompts(intent, rng), self._n_open):
            yield row(prompt=prompt, context=framing.name, family=framing.family)

    def _row(self, intent: IntentSpec, *, extras: dict[str, Any], **columns: Any) -> DataRow:
        own = {"request": intent.request, "shift": SHIFT[self._split], "style": self._style}
        return make_row(
            intent_id=intent.intent_id,
            domain=self._domain,
            split=self._split,
            index=0,
            extras={**intent.extras, **extras, **own},
            **columns,
        )


def _tallied(rows: Iterable[DataRow], tally: dict[str, Counter[str]]) -> Iterator[DataRow]:
    for row in rows:
        for name, counter in tally.items():
            counter[row["extra_info"][name]] += 1  # type: ignore[literal-required]
        yield row


def _manifest(
    material: BuildInput, options: BuildOptions, counts: dict[str, Any], warnings: list[str]
) -> dict[str, Any]:
    everything = (*material.intents, *material.held_out, *material.contrast)
    return {
        "schema_version": SCHEMA_VERSION,
        "domain": material.domain,
        "sources": [{"name": s.name, "sha256": s.sha256, "rows": len(s.rows)} for s in material.sources],
        "options": asdict(options),
        "versions": {name: _version(name) for name in ("verl-air", "pyarrow")},
        "splits": counts,
        "strata": dict(sorted(Counter(intent.stratum for intent in everything).items())),
        "excluded": material.exclusions.as_dict(),
        "warnings": warnings,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source folder that is not installed
        return "not installed"
