"""A page that a person can look through, group by group: one self-contained HTML file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.compute as pc

from verl_air.data.check import CheckReport
from verl_air.data.schema import SCHEMA, SPLITS, DataRow, open_table, read_extra_columns
from verl_air.files import write_atomically

_TEMPLATE = Path(__file__).with_name("preview.html.jinja")


def write_preview(out: Path, paths: Sequence[str | os.PathLike[str]], report: CheckReport, *, groups: int = 60) -> Path:
    """Write the page.

    Args:
        out: the HTML file.
        paths: the files that were checked.
        report: what was found.
        groups: how many meta-groups to show, spread evenly over the files and over each file's length.

    Raises:
        DataError: a file cannot be read.
    """
    share = max(1, groups // max(1, len(paths)))
    shown = [group for path in paths for group in _sample(Path(path), share)]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        report=report, groups=shown, splits=SPLITS, n_groups=sum(file.intents for file in report.files.values())
    )
    return write_atomically(out, page)


def _sample(path: Path, n: int) -> list[dict[str, Any]]:
    """``n`` groups of a file, as the template reads them."""
    intent_id = read_extra_columns(path, ("intent_id",))["intent_id"]
    names = pc.unique(intent_id)
    if not len(names):
        return []
    chosen = names.take(np.unique(np.linspace(0, len(names) - 1, min(n, len(names))).astype(int)))
    wanted = np.flatnonzero(pc.is_in(intent_id, value_set=chosen).to_numpy())
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in _rows(path, wanted):
        info, extras = row["extra_info"], _extras(row)
        request = str(extras.pop("request", ""))
        group = groups.setdefault(
            (info["domain"], info["intent_id"], info["split"]),
            {**info, "file": str(path), "request": request, "rows": []},
        )
        gold = row["reward_model"]["ground_truth"]
        group["rows"].append({**info, "prompt": row["prompt"], "ground_truth": gold, "extras": extras})
    return list(groups.values())


def _rows(path: Path, wanted: np.ndarray) -> Iterator[DataRow]:
    start = 0
    for batch in open_table(path).iter_batches(columns=SCHEMA.names):
        inside = wanted[(wanted >= start) & (wanted < start + batch.num_rows)] - start
        if len(inside):
            yield from batch.take(inside).to_pylist()
        start += batch.num_rows


def _extras(row: DataRow) -> dict[str, Any]:
    """Decoded; a fault in it is reported by the check, and shown here as it is."""
    raw = row["extra_info"]["extras"]
    try:
        decoded = json.loads(raw or "{}")
    except json.JSONDecodeError:
        decoded = None
    return decoded if isinstance(decoded, dict) else {"extras": raw}
