"""A page that a person can look through, group by group: one self-contained HTML file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from verl_air.data.check import CheckReport
from verl_air.data.schema import SCHEMA, SPLITS, read_extra_columns
from verl_air.files import write_atomically

_TEMPLATE = Path(__file__).with_name("preview.html.jinja")


def write_preview(out: Path, paths: Sequence[str | os.PathLike[str]], report: CheckReport, *, groups: int = 60) -> Path:
    """Write the page, with so many meta-groups, spread evenly over the files and over each file's length."""
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
    wanted = pc.field(("extra_info", "intent_id")).isin(chosen)
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in pq.read_table(path, columns=SCHEMA.names, filters=wanted).to_pylist():
        info = row["extra_info"]
        try:
            extras = json.loads(info["extras"] or "{}")
        except json.JSONDecodeError:  # the check reports it
            extras = None
        if not isinstance(extras, dict):
            extras = {"extras": info["extras"]}
        key = (info["domain"], info["intent_id"], info["split"])
        group = groups.setdefault(key, {**info, "file": str(path), "request": extras.get("request"), "rows": []})
        extras.pop("request", None)
        gold = row["reward_model"]["ground_truth"]
        group["rows"].append({**info, "prompt": row["prompt"], "ground_truth": gold, "extras": extras})
    return list(groups.values())
