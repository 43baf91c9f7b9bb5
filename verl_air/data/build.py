"""A whole build: intents in, ``train.parquet``, ``id.parquet``, ``ood.parquet`` and ``manifest.json`` out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from verl_air.data.anchors import get_anchor_format
from verl_air.data.framings import OOD_FAMILIES, framings_for
from verl_air.data.intents import Exclusions, Intent
from verl_air.data.progress import with_progress
from verl_air.data.render import Plan, render_split
from verl_air.data.schema import SPLITS, Row, Split, write_rows
from verl_air.data.sources import Source
from verl_air.data.splits import drop_leaks, split_framings, split_intents
from verl_air.errors import DataError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class BuildOptions:
    """How meta-groups are made.

    seed: the same seed and data give the same bytes.
    held_out: share (below 1) or number of intents for ID and OOD, if no separate file holds them.
    anchors, open_: rows an intent in ID and OOD; the paper's m and n [open in the paper].
    train_anchors, train_open: rows a training intent; more than a visit takes, so that visits differ.
    formats: anchor formats, by name.
    ood_families: families of framings that training never meets.
    """

    seed: int = 0
    held_out: float = 0.2
    anchors: int = 1
    open_: int = 3
    train_anchors: int = 2
    train_open: int = 6
    formats: tuple[str, ...] = ("multiple_choice",)
    ood_families: tuple[str, ...] = tuple(sorted(OOD_FAMILIES))

    def __post_init__(self) -> None:
        for name in ("anchors", "open_", "train_anchors", "train_open"):
            if getattr(self, name) < 1:
                raise DataError(f"{name.rstrip('_')} must be at least 1, got {getattr(self, name)}")
        if self.train_anchors < self.anchors or self.train_open < self.open_:
            raise DataError("a training intent needs at least as many anchors and open rows as a visit takes")
        if not self.formats:
            raise DataError("at least one anchor format is needed")

    def rows_an_intent(self, split: Split) -> tuple[int, int]:
        """Anchors and open rows of an intent."""
        return (self.train_anchors, self.train_open) if split == "train" else (self.anchors, self.open_)


@dataclass(frozen=True)
class Material:
    """What a domain read from its sources.

    answer: what the answer of an open prompt is; see :class:`~verl_air.data.render.Plan`.
    intents: for training, if ``held_out`` has others for ID and OOD; else they are split.
    contrast: intents that are split in any case, so that both sides have some.
    """

    domain: str
    answer: str
    sources: Sequence[Source]
    intents: Sequence[Intent]
    exclusions: Exclusions
    held_out: Sequence[Intent] = ()
    contrast: Sequence[Intent] = ()


def build(material: Material, options: BuildOptions, out: Path) -> dict[str, Any]:
    """Write the three files and the manifest, which is returned.

    All is written to a temporary folder inside ``out`` and then moved, the manifest last: no file is ever half-written.

    Raises:
        DataError: too few intents or framings, an unknown format or family, or ``out`` is a file.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: --out must be a folder")
    intents = _divide(material, options)
    needed: dict[Split, int] = {split: options.rows_an_intent(split)[1] for split in SPLITS}
    framings = split_framings(framings_for(material.domain), options.ood_families, needed)
    formats = [get_anchor_format(name) for name in options.formats]
    out.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=out))
    try:
        counts: dict[str, Any] = {}
        for split in SPLITS:
            anchors, open_ = options.rows_an_intent(split)
            plan = Plan(material.domain, split, anchors, open_, formats, framings[split], material.answer, options.seed)
            tally = _Tally()
            rows = tally.watch(render_split(intents[split], plan))
            total = len(intents[split]) * (anchors + open_)
            path = write_rows(temporary / f"{split}.parquet", with_progress(rows, split, total))
            counts[split] = {**tally.as_dict(len(intents[split])), "sha256": _sha256(path)}
        manifest = _manifest(material, options, counts)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for name in (*(f"{split}.parquet" for split in SPLITS), MANIFEST):
            os.replace(temporary / name, out / name)
    finally:
        shutil.rmtree(temporary)
    return manifest


def _divide(material: Material, options: BuildOptions) -> dict[Split, Sequence[Intent]]:
    to_split = [*(() if material.held_out else material.intents), *material.contrast]
    train, held = split_intents(to_split, options.held_out, options.seed) if to_split else ([], [])
    if material.held_out:
        train = [*material.intents, *train]
        held = drop_leaks(train, [*material.held_out, *held], material.exclusions)
    return {"train": train, "id": held, "ood": held}


class _Tally:
    """Counts rows as they pass."""

    def __init__(self) -> None:
        self._roles: Counter[str] = Counter()
        self._contexts: Counter[str] = Counter()
        self._families: Counter[str] = Counter()

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            info = row["extra_info"]
            self._roles[info["role"]] += 1
            self._contexts[info["context"]] += 1
            self._families[info["family"]] += 1
            yield row

    def as_dict(self, intents: int) -> dict[str, Any]:
        return {
            "intents": intents,
            "rows": self._roles.total(),
            **{key: dict(sorted(counter.items())) for key, counter in self._counters()},
        }

    def _counters(self) -> Iterator[tuple[str, Counter[str]]]:
        yield from (("roles", self._roles), ("families", self._families), ("contexts", self._contexts))


def _manifest(material: Material, options: BuildOptions, counts: dict[str, Any]) -> dict[str, Any]:
    everything = (*material.intents, *material.held_out, *material.contrast)
    return {
        "domain": material.domain,
        "sources": [
            {"name": source.name, "sha256": source.sha256, "rows": len(source.records)} for source in material.sources
        ],
        "options": asdict(options),
        "versions": {name: _version(name) for name in ("verl-air", "pyarrow")},
        "splits": counts,
        "strata": dict(sorted(Counter(z.stratum for z in everything).items())),
        "excluded": material.exclusions.as_dict(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source folder that is not installed
        return "not installed"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
