"""A whole build: intents in, ``train.parquet``, ``id.parquet``, ``ood.parquet`` and ``manifest.json`` out."""

from __future__ import annotations

import hashlib
import json
import os
import random
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
from verl_air.data.intents import BuildInput, IntentSpec, seeded, seeded_rank
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
    train, held = divide_intents(material, options.held_out, options.seed, warnings)
    found = framings_for(material.domain)
    framings = split_framings(
        found,
        ood_families(found, options.ood_families, options.seed),
        {split: options.rows_per_intent(split)[1] for split in SPLITS},
    )
    formats = [get_anchor_format(name) for name in options.formats]
    fits = prompt_limit(options.max_prompt_length, options.tokenizer)
    renderers = {split: _Renderer(material, options, split, formats, framings[split], fits) for split in SPLITS}
    train, held = _without_short(train, held, renderers, material, options)
    if (share := options.benign_share) is not None:
        train, held = (with_benign_share(own, share, options.seed, material.exclusions) for own in (train, held))
    for name, own in (("train", train), ("id, ood", held)):
        kinds = ([z.request for z in own if z.stratum == kind] for kind in ("harmful", "benign"))
        warnings += [f"{name}: {warning}" for warning in contrast_warnings(*kinds)]

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=out) as folder:
        temporary, counts = Path(folder), {}
        for split, renderer in renderers.items():
            counts[split] = _write_split(temporary / f"{split}.parquet", renderer, train if split == "train" else held)
        everything = (*material.intents, *material.held_out, *material.contrast)
        manifest = {
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
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for name in (*(f"{split}.parquet" for split in SPLITS), MANIFEST):
            os.replace(temporary / name, out / name)
    return manifest


def _without_short(
    train: list[IntentSpec],
    held: list[IntentSpec],
    renderers: dict[Split, _Renderer],
    material: BuildInput,
    options: BuildOptions,
) -> tuple[list[IntentSpec], list[IntentSpec]]:
    """The intents that the prompt limit leaves enough rows; ID and OOD keep the same ones."""
    limit = options.max_prompt_length

    def kept(intents: list[IntentSpec], *splits: Split) -> list[IntentSpec]:
        left = [z for z in intents if all(renderers[split].has_enough(z, options.open_) for split in splits)]
        if not left:
            raise DataError(
                f"split {splits[0]!r}: no intent fits --max-prompt-length {limit}: raise it (and "
                "data.max_prompt_length of the recipe) or leave the long framings out"
            )
        return left

    kept_train, kept_held = kept(train, "train"), kept(held, "id", "ood")
    ids = {intent.intent_id for intent in (*kept_train, *kept_held)}
    for intent_id in sorted({intent.intent_id for intent in (*train, *held)} - ids):
        material.exclusions.add(f"prompts above {limit} tokens leave fewer rows than a visit takes", intent_id)
    return kept_train, kept_held


def _write_split(path: Path, renderer: _Renderer, intents: Sequence[IntentSpec]) -> dict[str, Any]:
    """Write a file; returns what it holds, for the manifest."""
    role, family, context = Counter[str](), Counter[str](), Counter[str]()

    def counted(rows: Iterable[DataRow]) -> Iterator[DataRow]:
        for row in rows:
            info = row["extra_info"]
            role[info["role"]] += 1
            family[info["family"]] += 1
            context[info["context"]] += 1
            yield row

    n_rows = len(intents) * renderer.rows_per_intent
    write_rows(path, counted(tqdm(renderer.rows(intents), path.stem, n_rows, leave=False, disable=None)))
    return {
        "intents": len(intents),
        "rows": role.total(),
        "roles": dict(sorted(role.items())),
        "families": dict(sorted(family.items())),
        "contexts": dict(sorted(context.items())),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


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
        self._material, self._options, self._split = material, options, split
        self._formats, self._framings, self._fits = formats, framings, fits
        self._instruct = partial(with_instruction, domain=material.domain, style=options.style)
        self._n_anchors, self._n_open = options.rows_per_intent(split)
        self._positions = BalancedPositions(seeded(options.seed, split, "positions"))
        self.rows_per_intent = self._n_anchors + self._n_open

    def rows(self, intents: Sequence[IntentSpec]) -> Iterator[DataRow]:
        """All rows, intent by intent; their order and content depend on the seed and the intents alone.

        Raises:
            DataError: an intent cannot have as many different anchors, or a framing names an unknown slot.
        """
        seed, index = self._options.seed, 0
        for number, intent in enumerate(sorted(intents, key=lambda z: seeded_rank(seed, z.intent_id))):
            rng = seeded(seed, self._split, intent.intent_id)
            for row in (*self._anchors(intent, number, rng), *self._open(intent, rng)):
                row["extra_info"]["index"] = index
                index += 1
                yield row

    def has_enough(self, intent: IntentSpec, visit: int) -> bool:
        """Whether an intent has as many open rows within the prompt limit as a visit takes, and anchors at all."""
        anchors = (chosen.render(intent.question, 0, random.Random(0)) for chosen in self._formats)
        if not all(self._fits(self._instruct(anchor.text, anchor.what)) for anchor in anchors):
            return False
        return len(list(islice(self._prompts(intent, random.Random(0)), visit))) == visit

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

    def _open(self, intent: IntentSpec, rng: random.Random) -> Iterator[DataRow]:
        for framing, prompt in islice(self._prompts(intent, rng), self._n_open):
            yield self._row(
                intent,
                prompt=prompt,
                ground_truth=intent.ground_truth,
                role="open",
                context=framing.name,
                family=framing.family,
            )

    def _prompts(self, intent: IntentSpec, rng: random.Random) -> Iterator[tuple[FramingTemplate, list[PromptMessage]]]:
        """The intent in all framings, in the order in which it takes them, as far as they are within the limit."""
        slots = {"request": intent.request, **intent.slots}
        for framing in choose_framings(self._framings, len(self._framings), rng):
            prompt = self._instruct(framing.render(slots), self._material.answer)
            if self._fits(prompt):
                yield framing, prompt

    def _row(self, intent: IntentSpec, *, extras: dict[str, Any] | None = None, **columns: Any) -> DataRow:
        own = {"request": intent.request, "shift": SHIFT[self._split], "style": self._options.style}
        return make_row(
            intent_id=intent.intent_id,
            domain=self._material.domain,
            split=self._split,
            index=0,
            extras={**intent.extras, **(extras or {}), **own},
            **columns,
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source folder that is not installed
        return "not installed"
